"""The networks of the benchmark, with random weights: cost and exactness do not depend on training."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from anchored.compat import prepare_torchvision

CLASSES = 10


@dataclass(frozen=True)
class Setting:
    """A network and the shape of its batches."""

    title: str
    size: int
    batch: int
    views: int


SETTINGS = {
    "vit-ti": Setting("ViT-Ti/16", 224, 8, 1),
    "vit-b": Setting("ViT-B/16", 224, 8, 1),
    "resnet50": Setting("ResNet-50", 224, 8, 1),
    "tiny-vit": Setting("the demo's ViT", 20, 64, 2),
    "tiny-resnet": Setting("the demo's ResNet", 20, 64, 2),
}
FULL, QUICK = ("vit-ti", "vit-b", "resnet50"), ("tiny-vit", "tiny-resnet")


def build(name: str) -> nn.Module:
    """In eval mode, filters channels last, as the steps of the project place them."""
    prepare_torchvision()
    import timm

    torch.manual_seed(0)
    if name == "tiny-vit":
        model = _tiny_vit()
    elif name == "tiny-resnet":
        model = _tiny_resnet()
    elif name == "resnet50":
        # timm's last norms of residual branches start at zero: every gradient inside would be zero, and every method exact.
        model = timm.create_model("resnet50", num_classes=CLASSES, zero_init_last=False)
    else:
        model = timm.create_model({"vit-ti": "vit_tiny_patch16_224", "vit-b": "vit_base_patch16_224"}[name], num_classes=CLASSES)
    return cast(nn.Module, model.to(memory_format=torch.channels_last).eval())  # type: ignore[call-overload]


def batch(setting: Setting, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images, (B, V, 3, H, W) with channels last in memory, and labels, (B, V)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(setting.batch, setting.views, setting.size, setting.size, 3, generator=generator).movedim(-1, 2)
    labels = torch.randint(CLASSES, (setting.batch, setting.views), generator=generator)
    return images.to(device), labels.to(device)


def _tiny_vit() -> nn.Module:
    """Patches of 4, width 64, 4 blocks."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=20, patch_size=4, embed_dim=64, depth=4, num_heads=4, num_classes=CLASSES)


def _tiny_resnet() -> nn.Module:
    """133,376 parameters before the head, a 3x3 stem with stride 2, no max-pool."""
    from timm.models.resnet import BasicBlock, ResNet

    block: Any = BasicBlock
    model: Any = ResNet(block, (1, 1, 1, 1), channels=(16, 32, 48, 64), num_classes=CLASSES, zero_init_last=False)
    model.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return cast(nn.Module, model)
