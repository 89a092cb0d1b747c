"""How alike two Fishers are.

rank correlation   Pearson correlation of the ranks, ties sharing their mean rank (Spearman): does F order the parameters alike?
log-correlation    Pearson correlation of log F where both are positive: are also the ratios alike?
overlap            share of the largest hundredth of one that is among the largest hundredth of the other: 0.01 by chance

Over all entries the two correlations mostly compare the layers, whose scales differ by orders of magnitude; the median over tensors
compares the entries within.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anchored.diagnostics.sample import MOST_OF_TENSOR, Values, entry_count, places, take


@dataclass(frozen=True)
class Sampled:
    """Entries of a Fisher to compare: over all tensors, and of each by name."""

    entries: int
    shapes: Mapping[str, tuple[int, ...]]
    overall: Values
    tensors: Mapping[str, Values]

    @staticmethod
    def of(fisher: Mapping[str, Tensor]) -> "Sampled":
        """At most 1,000,000 entries over all and 100,000 of each tensor (`sample.py`)."""
        total = entry_count(fisher)
        each = {name: take({name: fisher[name]}, places(fisher[name].numel(), MOST_OF_TENSOR)) for name in sorted(fisher)}
        shapes = {name: tuple(fisher[name].shape) for name in sorted(fisher)}
        return Sampled(total, shapes, take(fisher, places(total)), each)


@dataclass(frozen=True)
class Alike:
    """Correlations over all entries, and of each tensor; nan where one of the two is constant."""

    sampled: int
    rank: float
    log: float
    top: float
    rank_of: Mapping[str, float]
    log_of: Mapping[str, float]


def compare(one: Sampled, other: Sampled) -> Alike | None:
    """The figures of the module docstring; None where parameters or shapes differ."""
    if one.shapes != other.shapes:
        return None
    return Alike(
        len(one.overall),
        rank_correlation(one.overall, other.overall),
        log_correlation(one.overall, other.overall),
        overlap(one.overall, other.overall),
        {name: rank_correlation(one.tensors[name], other.tensors[name]) for name in one.tensors},
        {name: log_correlation(one.tensors[name], other.tensors[name]) for name in one.tensors},
    )


def rank_correlation(one: Values, other: Values) -> float:
    """Spearman's correlation; nan where one side is constant."""
    return _pearson(ranks(one), ranks(other))


def log_correlation(one: Values, other: Values) -> float:
    """Pearson's correlation of the logarithms of entries that are positive in both."""
    both = (one > 0) & (other > 0)
    return _pearson(np.log(one[both].astype(np.float64)), np.log(other[both].astype(np.float64)))


def overlap(one: Values, other: Values, share: float = 0.01) -> float:
    """Share of the largest `share` of `one` that is among the largest `share` of `other`; at least one entry each."""
    count = max(1, round(share * len(one)))
    return len(np.intersect1d(_largest(one, count), _largest(other, count), assume_unique=True)) / count


def ranks(values: Values) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[where]


def _largest(values: Values, count: int) -> NDArray[np.int64]:
    # Stable, so that among equal entries the same ones count on both sides.
    return np.argsort(values, kind="stable")[len(values) - count :]


def _pearson(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if len(one) < 2:
        return float("nan")
    first, second = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale > 0 else float("nan")
