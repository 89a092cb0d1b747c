"""A backbone cut after its first stages, so that what is fixed is computed once and what is trained every step.

    model(images) = tail(stem(images))

Only for timm's VisionTransformer and ResNet, whose forward passes are chains; a test compares both sides for each.
"""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from anchored.errors import ConfigError

Part = Callable[[Tensor], Tensor]


def split(model: nn.Module, stages: int) -> tuple[Part, Part]:
    """Stem and tail of `model`: the stem ends after `stages` stages (blocks of a ViT), the tail gives features (B, D).

    Both share the parameters of `model`.

    Raises:
        ConfigError: the architecture is another one.
    """
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    # By exact type: a subclass may have a forward pass of its own.
    if type(model) is VisionTransformer:
        return _split_vit(model, stages)
    if type(model) is ResNet:
        return _split_resnet(model, stages)
    raise ConfigError(
        f"training.frozen_stages cannot cut a {type(model).__name__}.",
        "leave it out, or use a VisionTransformer or ResNet of timm.",
    )


def _split_vit(model: nn.Module, stages: int) -> tuple[Part, Part]:
    from timm.models.vision_transformer import VisionTransformer

    vit = cast(VisionTransformer, model)

    def stem(images: Tensor) -> Tensor:
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        return vit.blocks[:stages](tokens)

    def tail(tokens: Tensor) -> Tensor:
        return vit.forward_head(vit.norm(vit.blocks[stages:](tokens)))

    return stem, tail


def _split_resnet(model: nn.Module, stages: int) -> tuple[Part, Part]:
    from timm.models.resnet import ResNet

    resnet = cast(ResNet, model)
    layers: list[Any] = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]

    def stem(images: Tensor) -> Tensor:
        maps = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(images))))
        return nn.Sequential(*layers[:stages])(maps)

    def tail(maps: Tensor) -> Tensor:
        return resnet.forward_head(nn.Sequential(*layers[stages:])(maps))

    return stem, tail
