"""What is done to a Fisher before it weighs a penalty. The stored one stays raw.

With m = mean of F over all entries of all tensors, and n their number:

    none            F
    normalise       F / m                           trace = n, mean 1
    floor(eps)      max(F, eps * m), normalised     no parameter is free: each is held at least eps as tightly as the mean
    clip(c)         min(F, q_c), normalised         q_c: smallest entry such that a share c of all entries is not above it
    layer-mean      mean of each tensor, normalised     keeps what F says about layers, forgets what it says inside them

All but `none` end with mean 1, so that one grid of strengths serves them all. Normalising first would change nothing:
floor, clip and layer-mean commute with a scale.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from anchored.errors import ConfigError, NumericalError
from anchored.fisher.statistics import flat, quantiles

Kind = Literal["none", "floor", "clip", "layer-mean", "normalise"]


def condition(fisher: Mapping[str, Tensor], kind: Kind, value: float | None = None) -> dict[str, Tensor]:
    """A conditioned copy of `fisher`, as the module docstring defines.

    Args:
        fisher: parameter names to non-negative tensors.
        kind: which conditioning.
        value: eps > 0 for floor, 0 < c <= 1 for clip, None for the others.

    Raises:
        ConfigError: an unknown kind, or a value that is missing, superfluous or out of range.
        NumericalError: F is zero everywhere, so no scale exists.
    """
    _require_value(kind, value)
    copy = {name: tensor.clone() for name, tensor in fisher.items()}
    if kind == "none":
        return copy
    if kind == "floor":
        assert value is not None
        bound = value * _mean(copy)
        copy = {name: tensor.clamp_min_(bound) for name, tensor in copy.items()}
    elif kind == "clip":
        assert value is not None
        bound = _quantile(copy, value)
        copy = {name: tensor.clamp_max_(bound) for name, tensor in copy.items()}
    elif kind == "layer-mean":
        copy = {name: tensor.fill_(_mean({name: tensor})) for name, tensor in copy.items()}
    scale = _mean(copy)
    if scale == 0:
        raise NumericalError(
            f"the Fisher is zero after '{kind}' in every entry, so it has no scale.",
            "measure it on more images, raise the clip, or use 'none'.",
        )
    # In place: the copy is ours, and a third one of 86 million entries would not be needed by anybody.
    return {name: tensor.div_(scale) for name, tensor in copy.items()}


def shuffle_within_tensors(fisher: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """`fisher` with the entries of each tensor permuted: a control with the same values and the wrong places.

    The permutation of a tensor depends on `seed`, its name and its size only.
    """
    return {name: _permuted(tensor, f"{seed}/{name}") for name, tensor in fisher.items()}


def _permuted(tensor: Tensor, key: str) -> Tensor:
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.flatten()[order].reshape(tensor.shape)


def _require_value(kind: str, value: float | None) -> None:
    if kind not in ("none", "floor", "clip", "layer-mean", "normalise"):
        raise ConfigError(f"there is no conditioning '{kind}'.", "choose none, floor, clip, layer-mean or normalise.")
    if (value is not None) != (kind in ("floor", "clip")):
        raise ConfigError(f"conditioning '{kind}' {'needs a' if value is None else 'takes no'} value.")
    if kind == "floor" and value is not None and not 0 < value < math.inf:
        raise ConfigError(f"floor needs a positive value, not {value}.", "0.1 holds every parameter at a tenth of the mean.")
    if kind == "clip" and value is not None and not 0 < value <= 1:
        raise ConfigError(f"clip needs a share above 0 and at most 1, not {value}.", "0.99 cuts the largest hundredth.")


def _mean(fisher: Mapping[str, Tensor]) -> float:
    """In float64: a few entries hold most of the sum, and there are up to 1e8 of them."""
    return math.fsum(float(t.sum(dtype=torch.float64)) for t in fisher.values()) / sum(t.numel() for t in fisher.values())


def _quantile(fisher: Mapping[str, Tensor], share: float) -> float:
    # torch.quantile refuses more than 16 million entries; kthvalue needs three copies of them.
    return quantiles(flat(fisher.values()), (share,))[0]
