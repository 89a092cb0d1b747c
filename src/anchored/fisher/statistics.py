"""What a Fisher looks like: where its mass is and how uneven it is.

effective rank   (sum F)^2 / sum F^2        n for a constant F, 1 for a single non-zero entry
condition ratio  q95 / q05                  quantiles over the non-zero entries
condition number max / min                  over the non-zero entries

The quantile of a share s is the smallest entry such that a share s of all entries is not above it. Beside the Fisher itself one
float32 copy of all its entries is held at a time, and float64 in pieces: 86 million parameters need 0.7 GB, not 3.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_PIECE = 1 << 20


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
    """All tensors together, and each by name. `min` and the two condition figures are over the non-zero entries."""

    entries: int
    trace: float
    zeros: int
    min: float
    max: float
    effective_rank: float
    condition_ratio: float
    condition_number: float
    tensors: dict[str, TensorStatistics]


def statistics(fisher: Mapping[str, Tensor]) -> FisherStatistics:
    """The figures of the module docstring, sums in float64."""
    sums = {name: _sums(tensor) for name, tensor in fisher.items()}
    trace = math.fsum(total for total, _ in sums.values())
    squares = math.fsum(square for _, square in sums.values())
    tensors = {name: _of_tensor(tensor, sums[name][0], trace) for name, tensor in fisher.items()}
    entries, zeros = sum(one.entries for one in tensors.values()), sum(one.zeros for one in tensors.values())
    low, q05, q95, high = quantiles(flat(fisher.values()), (0.0, 0.05, 0.95, 1.0), skip=zeros) if entries > zeros else [0.0] * 4
    return FisherStatistics(
        entries=entries,
        trace=trace,
        zeros=zeros,
        min=low,
        max=high,
        effective_rank=trace * trace / squares if squares else 0.0,
        condition_ratio=q95 / q05 if q05 else 0.0,
        condition_number=high / low if low else 0.0,
        tensors=tensors,
    )


def flat(tensors: Iterable[Tensor]) -> NDArray[np.floating]:
    """All entries in one new array, in order: one copy, made tensor by tensor."""
    views = [tensor.detach().cpu().flatten().numpy() for tensor in tensors]
    return np.concatenate(views) if views else np.empty(0, np.float32)


def quantiles(values: NDArray[np.floating], shares: Sequence[float], *, skip: int = 0) -> list[float]:
    """Quantiles as the module docstring defines; reorders `values`, which saves a copy of them.

    Args:
        values: (n,), not sorted.
        shares: each from 0 (the smallest entry) to 1 (the largest).
        skip: how many of the smallest entries do not count.
    """
    places = [skip + max(1, math.ceil(share * (len(values) - skip))) - 1 for share in shares]
    values.partition(sorted(set(places)))
    return [float(values[place]) for place in places]


def _sums(tensor: Tensor) -> tuple[float, float]:
    """Sum and sum of squares in float64."""
    totals, squares = [], []
    for piece in tensor.detach().flatten().split(_PIECE):
        wide = piece.double()
        totals.append(float(wide.sum()))
        squares.append(float(wide.square().sum()))
    return math.fsum(totals), math.fsum(squares)


def _of_tensor(tensor: Tensor, total: float, trace: float) -> TensorStatistics:
    values = flat([tensor])
    zeros = len(values) - int(np.count_nonzero(values))
    q05, q95, high = quantiles(values, (0.05, 0.95, 1.0)) if len(values) else (0.0, 0.0, 0.0)
    return TensorStatistics(
        entries=len(values),
        share=total / trace if trace else 0.0,
        mean=total / len(values) if len(values) else 0.0,
        max=high,
        zeros=zeros,
        q05=q05,
        q95=q95,
    )
