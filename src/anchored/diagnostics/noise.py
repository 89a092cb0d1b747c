"""How many images are enough: a FIM measured on some images against the same FIM measured on others.

    split half      F on images [0, n) against F on [n, 2n), for n = 16, 32, 64, ... up to half of all
    noise           of the mean of a tensor over n images: sd(n) / mean = sigma / sqrt(n), where images are drawn independently
    enough          the n where sigma / sqrt(n) = 0.05, with sigma the root mean square over tensors

Every image is measured once, in disjoint blocks. The halves come from the sums that grow from block to block; sigma from how the
means of the blocks scatter:

    sigma_t^2 = sum_k n_k (m_kt / m_t - 1)^2 / (K - 1)          n_k images in block k, m_kt the mean of tensor t in it

The interval around `enough` takes the K blocks for independent and all tensors for one: images with large gradients have them in
every layer. Two sums and one block are held at a time: three times the FIM.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anchored.diagnostics.correlation import overlap, rank_correlation
from anchored.diagnostics.sample import entry_count, places, take
from anchored.errors import ConfigError
from anchored.fisher import DiagonalFisher

TARGET = 0.05
_FIRST = 16
_BLOCKS = 32
_Z = 1.959964

Measure = Callable[[int, int], DiagonalFisher]


@dataclass(frozen=True)
class Half:
    """F on `images` images against F on as many others.

    Args:
        images: n.
        rank: rank correlation over entries.
        difference: median over entries of |a - b| / ((a + b) / 2).
        overlap: of the two largest hundredths.
        noise: root mean square over tensors of the relative difference of their means, divided by sqrt(2): the noise of one half.
    """

    images: int
    rank: float
    difference: float
    overlap: float
    noise: float


@dataclass(frozen=True)
class SplitHalf:
    """The module docstring's figures.

    Args:
        images: how many were measured: the largest power of two within the FIM's.
        blocks: into how many blocks.
        sampled: over how many entries `rank`, `difference` and `overlap` of the halves were taken.
        halves: one a size.
        sigma: relative noise of the mean of a tensor over one image; root mean square over tensors.
        sigma_of: the same of each tensor.
        exponent: slope of log noise against log n over the halves; -0.5 by the law.
        enough: images for 5 %, with `low` and `high` of its 95 % interval.
        means: mean of each tensor over all images measured.
    """

    images: int
    blocks: int
    sampled: int
    halves: tuple[Half, ...]
    sigma: float
    sigma_of: Mapping[str, float]
    exponent: float
    enough: int
    low: int
    high: int
    means: Mapping[str, float]


def split_half(measure: Measure, images: int) -> SplitHalf:
    """Measures up to `images` images once and compares halves.

    Args:
        measure: measure(start, stop) -> the Fisher of the images start to stop.
        images: how many there are.

    Raises:
        ConfigError: fewer than four images.
    """
    ends = edges(images)
    chosen = np.empty(0, np.int64)
    halves: list[Half] = []
    means: list[dict[str, float]] = []
    whole: dict[str, Tensor] = {}
    part: dict[str, Tensor] = {}
    for start, stop in zip([0, *ends], ends, strict=False):
        block = measure(start, stop).sums
        means.append(_means(block, stop - start))
        _add(part, block)
        if start == 0:
            whole, part, half = part, {}, stop
            chosen = places(entry_count(whole))
        elif stop == 2 * half:
            halves.append(_compare(whole, part, half, chosen))
            _add(whole, part)
            part, half = {}, stop
    sizes = np.diff([0, *ends]).astype(np.float64)
    sigma_of = _scatter(means, sizes)
    sigma = math.sqrt(float(np.mean(np.square(list(sigma_of.values()))))) if sigma_of else math.nan
    enough = (sigma / TARGET) ** 2
    spread = [(len(sizes) - 1) / _chi_square(len(sizes) - 1, z) for z in (_Z, -_Z)]
    return SplitHalf(
        images=ends[-1],
        blocks=len(sizes),
        sampled=len(chosen),
        halves=tuple(halves),
        sigma=sigma,
        sigma_of=sigma_of,
        exponent=_slope(halves),
        enough=math.ceil(enough),
        low=math.ceil(enough * spread[0]),
        high=math.ceil(enough * spread[1]),
        means=_means(whole, ends[-1]),
    )


def edges(images: int) -> list[int]:
    """Where blocks end: doubling from the first half to the size of a block, then block after block; every half ends at one.

    Raises:
        ConfigError: fewer than four images.
    """
    if images < 4:
        raise ConfigError(f"a FIM of {images} images has no halves to compare.", "measure it on more images.")
    used = 1 << (images.bit_length() - 1)
    first = min(_FIRST, max(1, used // 8))
    block = max(first, used // _BLOCKS)
    found = [first]
    while found[-1] < used:
        found.append(found[-1] + min(found[-1], block))
    return found


def _compare(whole: Mapping[str, Tensor], part: Mapping[str, Tensor], images: int, chosen: np.ndarray) -> Half:
    one, other = take(whole, chosen).astype(np.float64), take(part, chosen).astype(np.float64)
    total = one + other
    seen = total > 0
    first, second = _means(whole, images), _means(part, images)
    apart = [2 * (first[name] - second[name]) / (first[name] + second[name]) for name in first if first[name] + second[name] > 0]
    return Half(
        images,
        rank_correlation(one, other),
        float(np.median(2 * np.abs(one - other)[seen] / total[seen])) if seen.any() else math.nan,
        overlap(one, other),
        math.sqrt(float(np.mean(np.square(apart))) / 2) if apart else math.nan,
    )


def _add(total: dict[str, Tensor], other: Mapping[str, Tensor]) -> None:
    for name, tensor in other.items():
        if name in total:
            total[name] += tensor
        else:
            total[name] = tensor.detach().clone()


def _means(sums: Mapping[str, Tensor], images: int) -> dict[str, float]:
    return {name: float(tensor.sum(dtype=torch.float64)) / images / max(1, tensor.numel()) for name, tensor in sums.items()}


def _scatter(means: list[dict[str, float]], sizes: np.ndarray) -> dict[str, float]:
    """Relative noise of each tensor that has any mass."""
    found = {}
    for name in means[0]:
        values = np.array([mean[name] for mean in means])
        overall = float(values @ sizes) / float(sizes.sum())
        if overall > 0:
            found[name] = math.sqrt(float(sizes @ np.square(values / overall - 1)) / (len(sizes) - 1))
    return found


def _slope(halves: list[Half]) -> float:
    points = [(math.log(half.images), math.log(half.noise)) for half in halves if half.noise > 0]
    if len(points) < 2:
        return math.nan
    x, y = np.array(points).T
    return float(np.polyfit(x, y, 1)[0])


def _chi_square(freedom: int, z: float) -> float:
    """Quantile of the chi-square distribution at the normal deviate `z` (Wilson and Hilferty 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3
