"""What a Fisher looks like: where its mass is and how uneven it is.

effective rank   (sum F)^2 / sum F^2        n for a constant F, 1 for a single non-zero entry
condition ratio  q95 / q05                  quantiles over the non-zero entries
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorStatistics:
    """One tensor: its share of the trace, and the distribution of its entries (quantiles over all of them, zeros included)."""

    entries: int
    share: float
    mean: float
    max: float
    zeros: int
    q05: float
    q95: float


@dataclass(frozen=True)
class FisherStatistics:
    """All tensors together, and each by name."""

    entries: int
    trace: float
    zeros: int
    effective_rank: float
    condition_ratio: float
    tensors: dict[str, TensorStatistics]


def statistics(fisher: Mapping[str, Tensor]) -> FisherStatistics:
    """The figures of the module docstring, computed in float64."""
    flat = {name: tensor.detach().flatten().double() for name, tensor in fisher.items()}
    trace = math.fsum(float(values.sum()) for values in flat.values())
    squares = math.fsum(float(values.square().sum()) for values in flat.values())
    everything = torch.cat(list(flat.values()))
    positive = everything[everything > 0]
    return FisherStatistics(
        entries=len(everything),
        trace=trace,
        zeros=len(everything) - len(positive),
        effective_rank=trace * trace / squares if squares else 0.0,
        condition_ratio=_quantile(positive, 0.95) / _quantile(positive, 0.05) if len(positive) else 0.0,
        tensors={name: _of_tensor(values, trace) for name, values in flat.items()},
    )


def _of_tensor(values: Tensor, trace: float) -> TensorStatistics:
    return TensorStatistics(
        entries=len(values),
        share=float(values.sum()) / trace if trace else 0.0,
        mean=float(values.mean()),
        max=float(values.max()),
        zeros=int((values == 0).sum()),
        q05=_quantile(values, 0.05),
        q95=_quantile(values, 0.95),
    )


def _quantile(values: Tensor, share: float) -> float:
    return float(values.kthvalue(max(1, math.ceil(share * len(values)))).values)
