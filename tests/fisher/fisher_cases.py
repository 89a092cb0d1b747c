"""Models, batches and losses that every backend has to agree on. Float64, random parameters: zeros hide errors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anchored.compat import prepare_torchvision

prepare_torchvision()

from timm.layers import LayerNorm2d, LayerScale2d  # noqa: E402
from timm.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

from anchored.fisher.check import curved, randomised  # noqa: E402

IMAGES = 5


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], Any]
    loss: Callable[[nn.Module, Any], Tensor]

    def model(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        return randomised(self.build(), dtype)


def random(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def one_view(model: nn.Module, images: Tensor) -> Tensor:
    return curved(model(images), len(images))


def views_together(model: nn.Module, views: Tensor) -> Tensor:
    return curved(model(views.flatten(0, 1)), len(views))


def multi_crop(model: nn.Module, crops: tuple[Tensor, Tensor]) -> Tensor:
    return sum(curved(model(views.flatten(0, 1)), len(views)) for views in crops)


def largest_difference(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Per tensor, relative to its largest entry."""
    assert list(actual) == list(expected)
    return {n: float((actual[n] - expected[n]).abs().max() / expected[n].abs().max().clamp_min(1e-300)) for n in expected}


def assert_equal_per_tensor(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], rtol: float = 1e-9) -> None:
    """All failures in one report: a global norm would hide a wrong layer behind a large one."""
    assert all(bool(expected[name].any()) for name in expected), "a tensor without any gradient tests nothing"
    wrong = {name: value for name, value in largest_difference(actual, expected).items() if not value <= rtol}
    assert not wrong, wrong


def vit(**options: Any) -> nn.Module:
    return VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=0, **options)


def tiny_resnet() -> nn.Module:
    model = ResNet(BasicBlock, [1, 1, 1, 1], channels=(16, 32, 48, 64), num_classes=0)
    model.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def bottlenecks() -> nn.Module:
    return ResNet(Bottleneck, [1, 1, 1, 1], channels=(8, 12, 16, 16), num_classes=0, cardinality=2, base_width=32)


def mixed_convolutions() -> nn.Module:
    """Groups, depthwise, dilation, odd padding, bias, channels-first norms and scales, and an in-place stem."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=(2, 1)),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 6, 3, padding=2, dilation=2, groups=2),
        LayerNorm2d(6),
        nn.Conv2d(6, 6, (3, 2), padding="same", groups=6),
        LayerScale2d(6, 0.1),
        nn.Conv2d(6, 4, 3, padding=3),
        nn.GroupNorm(2, 4),
        nn.GELU(),
        nn.Conv2d(4, 4, 2, padding=1, padding_mode="reflect"),
        nn.Flatten(),
    )


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(inplace=True), nn.Linear(7, 4, bias=False), nn.LayerNorm(4))


def norm_act_network() -> nn.Module:
    from timm.layers import BatchNormAct2d

    return nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), BatchNormAct2d(6), nn.Conv2d(6, 4, 3), nn.Flatten())


def tokens_of_plain_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm((5, 8)), nn.GELU(), nn.Linear(8, 3), nn.Flatten())


def frozen_stem() -> nn.Module:
    model = vit()
    model.patch_embed.requires_grad_(False)
    return model


def without_bias_gradients() -> nn.Module:
    model = mlp()
    model[0].bias.requires_grad_(False)
    model[1].weight.requires_grad_(False)
    return model


def views(size: int, count: int = 2) -> Callable[[], Tensor]:
    return lambda: random(IMAGES, count, 3, size, size)


def crops(large: int, small: tuple[int, int]) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (random(IMAGES, 2, 3, large, large), random(IMAGES, 3, 3, *small, seed=2))


CASES = [
    Case("vit class token", vit, lambda: random(IMAGES, 3, 16, 16), one_view),
    Case("vit two views", vit, views(16), views_together),
    Case("vit registers and LayerScale", lambda: vit(reg_tokens=2, init_values=0.1), views(16), views_together),
    Case("vit position without prefix", lambda: vit(reg_tokens=1, no_embed_class=True), views(16), views_together),
    Case("vit average pool", lambda: vit(class_token=False, global_pool="avg"), views(16), views_together),
    Case("vit multi-crop", lambda: vit(dynamic_img_size=True), crops(16, (8, 8)), multi_crop),
    Case("vit multi-crop oblong", lambda: vit(dynamic_img_size=True, reg_tokens=1), crops(16, (8, 12)), multi_crop),
    Case("vit multi-crop same count", lambda: vit(dynamic_img_size=True, no_embed_class=True), crops(16, (8, 32)), multi_crop),
    Case("vit frozen stem", frozen_stem, views(16), views_together),
    Case("resnet basic blocks", tiny_resnet, views(20), views_together),
    Case("resnet channels last", lambda: tiny_resnet().to(memory_format=torch.channels_last), views(20), views_together),
    Case("resnet multi-crop", tiny_resnet, crops(20, (12, 16)), multi_crop),
    Case("resnet bottlenecks", bottlenecks, views(32), views_together),
    Case("mixed convolutions", mixed_convolutions, views(9), views_together),
    Case("norm with activation", norm_act_network, views(9), views_together),
    Case("mlp", mlp, lambda: random(IMAGES, 6), one_view),
    Case("mlp partly frozen", without_bias_gradients, lambda: random(IMAGES, 6), one_view),
    Case("tokens", tokens_of_plain_layers, lambda: random(IMAGES, 2, 5, 6), views_together),
]
