"""Projection heads: they carry the SSL loss and are thrown away for fine-tuning."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projection(NamedTuple):
    """What a head makes of features (B, D): the unit-norm bottleneck (B, d) and the prototypes' cosines (B, K)."""

    bottleneck: Tensor
    logits: Tensor


class DinoHead(nn.Module):
    """MLP with BatchNorm, a unit-norm bottleneck, and unit-norm prototypes (Caron et al. 2021, section 3.1).

    Args:
        width: dimension D of the features.
        hidden: width of the two hidden layers.
        bottleneck: dimension d of the bottleneck.
        prototypes: number K of outputs.
    """

    def __init__(self, width: int, *, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, features: Tensor) -> Projection:
        """Projects features (B, D), in the precision of the head's weights."""
        # Cosines are divided by temperatures down to 0.04: in 16 bits that alone costs percents of a probability.
        with torch.autocast(features.device.type, enabled=False):
            bottleneck = F.normalize(self.mlp(features.to(self.prototypes.dtype)), dim=-1)
            return Projection(bottleneck, bottleneck @ F.normalize(self.prototypes, dim=-1).T)


def dino_head(width: int, dino: Mapping[str, Any], seed: int) -> DinoHead:
    """The head that `dino` of the plan describes, with weights that depend on `seed` only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DinoHead(width, hidden=dino["hidden"], bottleneck=dino["bottleneck"], prototypes=dino["prototypes"])
