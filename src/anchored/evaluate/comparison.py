"""Paired bootstrap of the difference between two arms, crossed over seeds and test images.

    difference = 1/S sum_s [ m(arm, s) - m(reference, s) ]
                 m: worst-group, average or adjusted accuracy of the model of seed s

    draw b:   image weights w_b: within each group, as many images as it has, drawn with replacement
              seed weights  v_b: S seeds drawn with replacement
              difference_b = 1/S sum_s v_bs [ m(arm, s; w_b) - m(reference, s; w_b) ]
    interval = 2.5 % and 97.5 % quantiles of difference_b          (percentile interval)

Both arms of a seed see the same data, backbone and test images, so what they share cancels (paired); images and seeds
are two crossed sources of chance, so both are redrawn (Owen 2007, "pigeonhole" bootstrap). All arms of an experiment
see the same draws.

Limits that the tables state: the picks of the selection rule are held fixed, so its own chance is not in the interval;
seeds that share a pre-trained checkpoint are not independent. And with few seeds percentile intervals are too narrow.

Weights are whole numbers, so hits per group are exact sums whatever the order or the number of threads.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anchored.evaluate import metrics

STATISTICS = ("worst_group", "average", "adjusted")

_LEVEL = 0.95
_BLOCK = 250  # draws held in memory at once: 250 x 19,962 CelebA test images x 4 bytes = 20 MB

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """An arm minus its reference in one statistic."""

    statistic: str
    difference: float
    sd: float
    low: float
    high: float
    wins: int
    ties: int
    seeds: int
    draws: int


@dataclass(frozen=True)
class Resampled:
    """Statistics of K models on the test images as they are (`point`, (K,)) and on every draw (`drawn`, (draws, K))."""

    point: dict[str, Floats]
    drawn: dict[str, Floats]


def resample(
    correct: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.integer],
    *,
    train_sizes: Sequence[int],
    draws: int,
    rng: np.random.Generator,
) -> Resampled:
    """Evaluates all models on the same redrawn test images.

    Args:
        correct: (K, images), whether model k classifies an image correctly.
        groups: (images,), the group of each image.
        train_sizes: training images of groups 0, 1, ...
        draws: number of bootstrap draws.
        rng: source of the image weights.
    """
    count = len(train_sizes)
    sizes = np.bincount(groups, minlength=count)
    drawn = [_hits(correct, groups, count, weights) for weights in image_weights(groups, draws, rng)]
    observed = _hits(correct, groups, count, np.ones((1, len(groups)), np.float32))[0]
    return Resampled(
        _statistics(observed, sizes, train_sizes),
        _statistics(np.concatenate(drawn) if drawn else observed[None][:0], sizes, train_sizes),
    )


def difference(
    resampled: Resampled,
    arm: Sequence[int],
    reference: Sequence[int],
    *,
    statistic: str,
    rng: np.random.Generator,
) -> Difference:
    """Arm minus reference over paired seeds.

    Args:
        resampled: the models of all arms.
        arm: the model of each seed.
        reference: the reference's model of each seed, in the same order.
        statistic: one of `STATISTICS`.
        rng: source of the seed weights.
    """
    point = resampled.point[statistic][list(arm)] - resampled.point[statistic][list(reference)]
    drawn = resampled.drawn[statistic][:, list(arm)] - resampled.drawn[statistic][:, list(reference)]
    draws, seeds = drawn.shape
    weighted = (drawn * seed_weights(seeds, draws, rng)).sum(axis=1) / seeds
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(weighted, (tail, 1 - tail)) if draws else (np.nan, np.nan)
    return Difference(
        statistic=statistic,
        difference=_rounded(point.mean()),
        sd=_rounded(point.std(ddof=1)) if seeds > 1 else float("nan"),
        low=_rounded(low),
        high=_rounded(high),
        wins=int((point > 0).sum()),
        ties=int((point == 0).sum()),
        seeds=seeds,
        draws=draws,
    )


def image_weights(
    groups: npt.NDArray[np.integer], draws: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of rows (one a draw) that say how often each image is drawn; rows sum to the group's size within every group."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    for start in range(0, draws, _BLOCK):
        rows = min(_BLOCK, draws - start)
        weights = np.zeros((rows, len(groups)), np.float32)
        for images in members:
            weights[:, images] = _multiplicities(rows, len(images), rng)
        yield weights


def seed_weights(seeds: int, draws: int, rng: np.random.Generator) -> Floats:
    """(draws, seeds): how often each seed is drawn."""
    return _multiplicities(draws, seeds, rng).astype(np.float64)


def generator(seed: int, *names: str) -> np.random.Generator:
    """A random generator that depends on `seed` and `names` alone, on any machine and in any process."""
    digest = hashlib.sha256("\x1f".join([str(seed), *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _rounded(value: np.floating | float) -> float:
    """Twelve decimals: beyond them the order in which a processor adds would show. No negative zero."""
    return round(float(value), 12) + 0.0


def _multiplicities(rows: int, items: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """(rows, items): `items` draws with replacement in each row, counted."""
    drawn = rng.integers(0, items, size=(rows, items)) + items * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items)


def _hits(
    correct: npt.NDArray[np.bool_], groups: npt.NDArray[np.integer], count: int, weights: npt.NDArray[np.float32]
) -> Floats:
    """(draws, K, groups): weighted number of correct images. float32 is exact here: the sums stay below 2^24 images."""
    hits = np.zeros((len(weights), len(correct), count))
    for group in range(count):
        images = np.flatnonzero(groups == group)
        hits[:, :, group] = weights[:, images] @ correct[:, images].T.astype(np.float32)
    return hits


def _statistics(hits: Floats, sizes: npt.NDArray[np.intp], train_sizes: Sequence[int]) -> dict[str, Floats]:
    return {
        "worst_group": metrics.worst_group_accuracy(hits, sizes)[0],
        "average": metrics.average_accuracy(hits, sizes),
        "adjusted": metrics.adjusted_average(hits, sizes, np.asarray(train_sizes)),
    }
