"""Projection heads: they carry the SSL loss and are thrown away for fine-tuning."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anchored.errors import ConfigError


class Projection(NamedTuple):
    """What a head makes of features (B, D): the unit-norm bottleneck (B, d) and the prototypes' cosines (B, K)."""

    bottleneck: Tensor
    logits: Tensor


class DinoHead(nn.Module):
    """MLP, a unit-norm bottleneck, and prototypes (Caron et al. 2021, section 3.1).

    The published heads are two settings of it: 3 layers of 2048 without BatchNorm and 65,536 unit-norm prototypes for the ViTs;
    2 layers of 4096 with BatchNorm and 60,000 prototypes of any norm for the ResNet-50.

    Args:
        width: dimension D of the features.
        hidden: width of the hidden layers.
        bottleneck: dimension d of the bottleneck.
        prototypes: number K of outputs.
        layers: number of linear layers of the MLP.
        batch_norm: BatchNorm between a hidden layer and its GELU.
        normalised: prototypes are divided by their norms, so that logits are cosines.
    """

    def __init__(
        self,
        width: int,
        *,
        hidden: int,
        bottleneck: int,
        prototypes: int,
        layers: int = 3,
        batch_norm: bool = True,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        widths = [width, *[hidden] * (layers - 1)]
        for before in widths[:-1]:
            parts += [nn.Linear(before, hidden), *([nn.BatchNorm1d(hidden)] if batch_norm else []), nn.GELU()]
        self.mlp = nn.Sequential(*parts, nn.Linear(widths[-1], bottleneck))
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=0.02)
        self.normalised = normalised

    def forward(self, features: Tensor) -> Projection:
        """Projects features (B, D), in the precision of the head's weights."""
        # Cosines are divided by temperatures down to 0.04: in 16 bits that alone costs percents of a probability.
        with torch.autocast(features.device.type, enabled=False):
            bottleneck = F.normalize(self.mlp(features.to(self.prototypes.dtype)), dim=-1)
            prototypes = F.normalize(self.prototypes, dim=-1) if self.normalised else self.prototypes
            return Projection(bottleneck, bottleneck @ prototypes.T)


SIZES = ("layers", "hidden", "batch_norm", "bottleneck", "prototypes", "normalised")
"""Keys of `dino` in the plan that say what a head looks like."""


def dino_head(width: int, dino: Mapping[str, Any], seed: int) -> DinoHead:
    """The head that `dino` of the plan describes, with weights that depend on `seed` only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DinoHead(width, **{key: dino[key] for key in SIZES})


def dino_settings(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """`dino` of a backbone's entry in the plan, pre-trained here or imported with a head.

    Raises:
        ConfigError: it was imported without a head, so it has no SSL loss.
    """
    part = entry["pretraining"] or entry["head"]
    if not part:
        raise ConfigError(
            f"backbone '{entry['family']}' was imported without an SSL head, so it has no dino loss.",
            f"give it backbones.{entry['family']}.head.",
        )
    dino: Mapping[str, Any] = part["dino"]
    return dino
