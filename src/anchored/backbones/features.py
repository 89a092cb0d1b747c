"""Frozen features of images, in batches."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anchored.compat import prepare_torchvision
from anchored.data.store import Images
from anchored.errors import ConfigError

Channels = tuple[float, ...]


def to_input(images: NDArray[np.uint8], entry: Mapping[str, Any], device: torch.device) -> Tensor:
    """uint8 images (B, H, W, 3) as the backbone expects them: float (B, 3, H, W), channels last, normalised.

    Args:
        images: pixels.
        entry: the backbone's entry in the plan; its channel statistics are used.
        device: where to.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).float().div_(255)
    # `normalise` in place and along whole images: new memory and a stride of 3 would take four times as long on a CPU.
    channels = (torch.tensor(values, device=device) for values in channel_statistics(entry))
    mean, std = (values.repeat(images.shape[1] * images.shape[2]) for values in channels)
    pixels.flatten(1).sub_(mean).div_(std)
    return pixels.permute(0, 3, 1, 2)


def normalise(pixels: Tensor, entry: Mapping[str, Any]) -> Tensor:
    """Pixels (..., 3, H, W) in [0, 1], minus the entry's mean, divided by its std."""
    mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in channel_statistics(entry))
    return (pixels - mean) / std


def channel_statistics(entry: Mapping[str, Any]) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the input's channels: the entry's, or those of timm's model where it has none.

    Raises:
        ConfigError: the weights are a file, and timm knows the architecture with several of both.
    """
    mean, std = entry["mean"], entry["std"]
    if mean is None or std is None:
        name = entry["architecture"]["name"]
        known = _timm_statistics(name, of_any=bool((entry["weights"] or {}).get("checkpoint")))
        if len(known) != 1:
            raise ConfigError(
                f"backbones.{entry['family']}: timm's weights of {name} want inputs of {len(known) or 'no known'} kinds of mean "
                "and standard deviation.",
                "give mean and std, or name the weights whose input is yours, as in architecture.name: vit_base_patch16_224.dino.",
            )
        mean, std = mean or known[0][0], std or known[0][1]
    return mean, std


@lru_cache
def _timm_statistics(name: str, *, of_any: bool) -> list[tuple[Channels, Channels]]:
    """Of timm's weights of this name, without a tag of its first ones or, `of_any`, of all that differ."""
    prepare_torchvision()
    from timm import list_pretrained
    from timm.models import get_pretrained_cfg

    names = list_pretrained(f"{name}.*") if of_any and "." not in name else [name]
    found = [cfg for each in names if (cfg := get_pretrained_cfg(each)) is not None]
    return list(dict.fromkeys((cfg.mean, cfg.std) for cfg in found))


def feature_width(model: nn.Module) -> int:
    """Dimension D of a backbone's features."""
    return int(model.num_features)  # type: ignore[arg-type]


@torch.inference_mode()
def features(model: nn.Module, inputs: Tensor, *, batch: int = 256) -> NDArray[np.float32]:
    """Features (N, D) of normalised inputs (N, 3, H, W); `model` is put into evaluation mode and back."""
    training = model.training
    model.eval()
    parts = [model(part).float() for part in inputs.split(batch)]
    model.train(training)
    return torch.cat(parts).cpu().numpy()


def stored_features(
    model: nn.Module, images: Images, rows: NDArray[np.int64], entry: Mapping[str, Any], device: torch.device, *, batch: int = 256
) -> NDArray[np.float32]:
    """Features (N, D) of the stored images `rows`, a batch at a time: as floats, all of them may not fit into memory."""
    parts = np.array_split(rows, range(batch, len(rows), batch))
    return np.concatenate([features(model, to_input(images[part], entry, device), batch=batch) for part in parts])
