"""The networks that a configuration can name."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from anchored.plan.base import Count, Section


class TinyResNet(Section):
    """timm's ResNet of basic blocks with a 3x3 stride-2 stem of 64 channels and no max-pool, for images of 16 to 64 pixels."""

    family: Literal["tiny-resnet"]
    """Names the kind of architecture."""
    layers: tuple[Count, Count, Count, Count] = (1, 1, 1, 1)
    """Blocks of each stage."""
    channels: tuple[Count, Count, Count, Count] = (16, 32, 48, 64)
    """Channels of each stage."""


class TinyViT(Section):
    """timm's VisionTransformer at the size of the embedded images."""

    family: Literal["tiny-vit"]
    """Names the kind of architecture."""
    image: Count = 20
    """Side of the image, in pixels."""
    patch: Count = 4
    """Side of a patch, in pixels."""
    width: Count = 64
    """Embedding dimension."""
    depth: Count = 4
    """Number of blocks."""
    heads: Count = 4
    """Attention heads of a block."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.image % self.patch or self.width % self.heads:
            raise ValueError("patch must divide image, and heads must divide width")
        return self


class TimmModel(Section):
    """Any model of timm by name, without its classifier."""

    family: Literal["timm"]
    """Names the kind of architecture."""
    name: str
    """timm's name, for example vit_base_patch16_224.dino."""
    image: Count | None = None
    """Side of the image, where the model should be built for another size than its own."""


Architecture = Annotated[TinyResNet | TinyViT | TimmModel, Field(discriminator="family")]
