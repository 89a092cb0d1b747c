"""From an architecture of the plan to a module that maps images (B, 3, H, W) to features (B, D)."""

import difflib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from anchored.compat import prepare_torchvision
from anchored.errors import ConfigError, EnvironmentFailure

# In timm's order: it prefers the file that cannot hold code.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """A network with random weights from torch's global generator.

    Args:
        architecture: `architecture` of a backbone in the plan.

    Raises:
        ConfigError: timm has no model of that name, or not for a given image size.
    """
    prepare_torchvision()
    return {"tiny-resnet": _tiny_resnet, "tiny-vit": _tiny_vit, "timm": _timm}[architecture["family"]](architecture)


def seeded(architecture: Mapping[str, Any], seed: int) -> nn.Module:
    """As `build`, with weights that depend on `seed` only; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(architecture)


def _tiny_resnet(architecture: Mapping[str, Any]) -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    channels = tuple(architecture["channels"])
    # timm annotates the classes of its own blocks and stems too narrowly.
    model: Any = ResNet(BasicBlock, tuple(architecture["layers"]), channels=channels, num_classes=0)  # type: ignore[arg-type]
    # 20 pixels cannot afford the 7x7 stem and the max-pool of the ImageNet network: together they divide by four.
    model.conv1 = nn.Conv2d(3, model.bn1.num_features, 3, stride=2, padding=1, bias=False)
    model.maxpool = nn.Identity()
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


def _tiny_vit(architecture: Mapping[str, Any]) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=architecture["image"],
        patch_size=architecture["patch"],
        embed_dim=architecture["width"],
        depth=architecture["depth"],
        num_heads=architecture["heads"],
        num_classes=0,
        dynamic_img_size=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def _timm(architecture: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    import timm

    name, image = architecture["name"], architecture["image"]
    options: dict[str, Any] = {} if image is None else {"img_size": image}

    def create(**more: Any) -> nn.Module:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options, **more)

    try:
        try:
            # Views of several sizes: positions are resampled to each. Only classes with a grid of positions know the option.
            return create(dynamic_img_size=True)
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
            return create()
    except (RuntimeError, ValueError) as error:
        if not any(text in str(error) for text in ("Unknown model", "Invalid pretrained tag", "no source prefix")):
            raise
        near = difflib.get_close_matches(name, timm.list_models() + timm.list_models(pretrained=True), n=3, cutoff=0.5)
        hint = f"timm {timm.__version__} has, for example: {', '.join(near)}." if near else "timm.list_models() names them."
        raise ConfigError(f"timm has no model '{name}'.", hint) from error
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        raise ConfigError(f"timm's {name} is not built for an image size.", "leave architecture.image out.") from error
    except OSError as error:
        raise EnvironmentFailure(
            f"the weights of timm's {name} cannot be fetched: {str(error).splitlines()[0]}",
            "fetch them once on a machine with a network, or use weights.checkpoint.",
        ) from error


def with_timm_weights(architecture: Mapping[str, Any]) -> nn.Module:
    """The timm model of the architecture's name with timm's own weights, fetched on first use."""
    prepare_torchvision()
    return _timm(architecture, pretrained=True)


def cached_weights(model: nn.Module) -> Path | None:
    """The file of the hub's cache that a model of `with_timm_weights` was read from; None where timm took it from elsewhere."""
    from huggingface_hub import try_to_load_from_cache

    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    hub = cfg.get("hf_hub_id")
    if not hub:
        return None
    repository, _, revision = hub.partition("@")
    names = [cfg["hf_hub_filename"]] if cfg.get("hf_hub_filename") else _HUB_FILES
    found = (try_to_load_from_cache(repository, name, revision=revision or None) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def check_view_sizes(model: nn.Module, views: Mapping[str, Any], stored: int, *, where: str) -> None:
    """Refuses views that a network of patches cannot take.

    Args:
        model: the backbone.
        views: a `views` of the plan.
        stored: side of the bank's images, in pixels.
        where: the key of `views`, for the message.

    Raises:
        ConfigError: a side is no multiple of the patch; or differs from the only one that the network takes.
    """
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    if embed is None or patch is None:
        return
    large = (f"{where}.global_size", views["global_size"]) if views["recipe"] == "dino" else ("size of the bank", stored)
    small = [(f"{where}.local_size", views["local_size"])] if views["local_crops"] else []
    for key, side in (large, *small):
        if getattr(embed, "strict_img_size", False) and embed.img_size is not None and (side, side) != tuple(embed.img_size):
            takes = "x".join(map(str, embed.img_size))
            raise ConfigError(f"{key} is {side}, this network takes {takes} only.", "use another architecture, or one size.")
        for part in (patch,) if isinstance(patch, int) else patch:
            if side % part:
                near = max(round(side / part), 1) * part
                raise ConfigError(f"{key} is {side}, which is no multiple of the patch size {part}.", f"use {near}.")


def stage_parameters(model: nn.Module) -> list[list[str]]:
    """Parameter names by stage, from input to output: the stem first, then the stages (blocks of a ViT).

    Uses timm's own grouping of its models, so it holds for any of them. Parameters after the last stage (a final norm)
    belong to the last entry.
    """
    from timm.models import group_parameters

    groups = group_parameters(model, cast(Any, model).group_matcher(coarse=True), reverse=False)
    return [list(groups[number]) for number in sorted(groups)]


def freeze_batch_norm(model: nn.Module) -> None:
    """Puts every BatchNorm into evaluation mode: it keeps the statistics of pre-training."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
