"""From cells to statistics: what each arm forgets at matched target accuracy, seed by seed, and the paired differences.

    ssl_mean, ssl_at_half    rise of the SSL loss over the anchor's (nats): mean over gains 0..1, and at gain 1/2
    knn_mean, worst_mean     drop of the k-NN accuracy below the anchor's: mean over gains 0..1
    gain_kept                largest gain at which 90 % of free fine-tuning's rise of the SSL loss is recovered

Definitions of gain and frontier: `frontier.py`. A difference is arm minus control on the same seed; its interval redraws seeds
(`evaluate/comparison.py`, without redrawing test images: the statistic interpolates between cells).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from anchored.evaluate.comparison import Resampled, difference, generator
from anchored.transfer.frontier import Floats, Frontier, forgotten_at, frontier, gain_kept, mean_forgotten
from anchored.transfer.settings import ANCHORS, CONTROLS, EWC_ARMS, FREE, FROZEN, LOW_RATE
from anchored.transfer.study import PRETRAINED

ARMS = (*ANCHORS, LOW_RATE)
STATISTICS = ("ssl_mean", "ssl_at_half", "knn_mean", "worst_mean", "gain_kept")
HIGHER_IS_BETTER = ("gain_kept",)
SEED = ["fim", "replicate"]

_RECOVERED = 0.9
# Below it a KL divergence in fp32 is rounding.
LEAST_DRIFT = 1e-6


def excess(cells: pl.DataFrame) -> pl.DataFrame:
    """The cells (without reference lines) with what they lost: ssl_rise, knn_drop, worst_drop."""
    anchor = cells.filter(pl.col("arm") == PRETRAINED).select("fim", *(pl.col(name).alias(f"{name}_0") for name in _MEASURES))
    return (
        cells.filter(~pl.col("replicate").is_null())
        .join(anchor, on="fim", how="left", maintain_order="left")
        .with_columns(
            (pl.col("ssl_loss") - pl.col("ssl_loss_0")).alias("ssl_rise"),
            (pl.col("knn_0") - pl.col("knn")).alias("knn_drop"),
            (pl.col("knn_worst_0") - pl.col("knn_worst")).alias("worst_drop"),
        )
        .drop(f"{name}_0" for name in _MEASURES)
    )


_MEASURES = ("ssl_loss", "knn", "knn_worst")


def readings(cells: pl.DataFrame) -> pl.DataFrame:
    """The statistics of every arm and seed: fim, replicate, arm, and a column for each of `STATISTICS`.

    Seeds whose free fine-tuning gained no target accuracy over the frozen backbone have no scale and are left out.
    """
    rows = []
    for (fim, replicate), seed in excess(cells).group_by(SEED, maintain_order=True):
        scale = _scale(seed)
        if scale is None:
            continue
        for arm in ARMS:
            fronts = {kind: _front(seed, arm, kind, scale) for kind in ("ssl_rise", "knn_drop", "worst_drop")}
            free_rise = seed.filter(pl.col("arm") == FREE)["ssl_rise"].item()
            rows.append(
                {
                    "fim": fim,
                    "replicate": replicate,
                    "arm": arm,
                    "ssl_mean": mean_forgotten(fronts["ssl_rise"]),
                    "ssl_at_half": forgotten_at(fronts["ssl_rise"], 0.5),
                    "knn_mean": mean_forgotten(fronts["knn_drop"]),
                    "worst_mean": mean_forgotten(fronts["worst_drop"]),
                    "gain_kept": gain_kept(fronts["ssl_rise"], (1 - _RECOVERED) * free_rise),
                }
            )
    schema: dict[str, Any] = {"fim": pl.String, "replicate": pl.Int16, "arm": pl.String}
    return pl.DataFrame(rows, schema=schema | dict.fromkeys(STATISTICS, pl.Float64))


def mean_frontiers(cells: pl.DataFrame, kind: str, gains: Sequence[float]) -> dict[str, Floats]:
    """For every arm (seeds, gains): its frontier in `kind` (ssl_rise, knn_drop) at `gains`, seeds in the order of the cells."""
    found: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for _, seed in excess(cells).group_by(SEED, maintain_order=True):
        scale = _scale(seed)
        if scale is not None:
            for arm in ARMS:
                front = _front(seed, arm, kind, scale)
                found[arm].append([forgotten_at(front, gain) for gain in gains])
    return {arm: np.array(rows).reshape(len(rows), len(gains)) for arm, rows in found.items()}


def contrasts(table: pl.DataFrame, *, seed: int, draws: int) -> pl.DataFrame:
    """Every EWC arm minus every control in every statistic, with intervals.

    Args:
        table: of `readings`.
        seed: the plan's.
        draws: bootstrap resamples of the seeds.

    Returns:
        fim, arm, reference, statistic, difference, low, high, better (seeds on which the arm is better) and seeds; fim is null
        where the seeds of all FIMs are pooled, and of several FIMs each has lines of its own: seeds of one backbone share its
        chance, so backbones have to agree. Seeds without a value in one of the two arms are left out.
    """
    fims = table["fim"].unique(maintain_order=True).to_list()
    scopes: list[tuple[str | None, pl.DataFrame]] = [(None, table)]
    scopes += [(fim, table.filter(pl.col("fim") == fim)) for fim in fims if len(fims) > 1]
    rows = []
    for (fim, part), arm, reference in product(scopes, EWC_ARMS, CONTROLS):
        for statistic in STATISTICS:
            left, right = _paired(part, arm, reference, statistic)
            if not len(left):
                continue
            point = np.concatenate([left, right])
            seeds = range(len(left))
            outcome = difference(
                Resampled({statistic: point}, {statistic: np.broadcast_to(point, (draws, len(point)))}),
                list(seeds),
                [len(left) + number for number in seeds],
                statistic=statistic,
                rng=generator(seed, "transfer", statistic),
            )
            losses = outcome.seeds - outcome.wins - outcome.ties
            rows.append(
                {
                    "fim": fim, "arm": arm, "reference": reference, "statistic": statistic, "difference": outcome.difference,
                    "low": outcome.low, "high": outcome.high,
                    "better": outcome.wins if statistic in HIGHER_IS_BETTER else losses, "seeds": outcome.seeds,
                }
            )  # fmt: skip
    schema: dict[str, Any] = dict.fromkeys(("fim", "arm", "reference", "statistic"), pl.String)
    schema |= dict.fromkeys(("difference", "low", "high"), pl.Float64) | dict.fromkeys(("better", "seeds"), pl.Int32)
    return pl.DataFrame(rows, schema=schema)


@dataclass(frozen=True)
class Agreement:
    """How a second-order prediction compares with the measured drift, over cells.

    Attributes:
        cells: number of cells with a drift above rounding.
        correlation: of the logarithms.
        ratio: median of measured over predicted.
        low: 5 % quantile of it.
        high: 95 % quantile of it.
    """

    cells: int
    correlation: float
    ratio: float
    low: float
    high: float


def agreement(cells: pl.DataFrame, prediction: str) -> Agreement:
    """`prediction` (diagonal or full) against `drift`, over the cells that moved by less than a nat.

    Second order is a statement about small steps; cells beyond a nat have left its range.
    """
    chosen = cells.filter(pl.col("drift").is_between(LEAST_DRIFT, 1.0), pl.col(prediction) > 0)
    if len(chosen) < 3:
        return Agreement(len(chosen), *(float("nan"),) * 4)
    predicted, measured = (np.log(chosen[name].to_numpy()) for name in (prediction, "drift"))
    if predicted.std() == 0 or measured.std() == 0:
        return Agreement(len(chosen), *(float("nan"),) * 4)
    low, middle, high = np.exp(np.quantile(measured - predicted, (0.05, 0.5, 0.95)))
    return Agreement(len(chosen), float(np.corrcoef(predicted, measured)[0, 1]), float(middle), float(low), float(high))


def seeds_without_gain(cells: pl.DataFrame) -> int:
    """Number of seeds that `readings` leaves out."""
    return sum(_scale(seed) is None for _, seed in excess(cells).group_by(SEED))


def _scale(seed: pl.DataFrame) -> tuple[float, float] | None:
    """Accuracy of the frozen cell, and what the free one gains over it; None where that is nothing."""
    frozen, free = (seed.filter(pl.col("arm") == arm)["accuracy"].item() for arm in (FROZEN, FREE))
    return (frozen, free - frozen) if free > frozen else None


def _front(seed: pl.DataFrame, arm: str, kind: str, scale: tuple[float, float]) -> Frontier:
    own = seed.filter(pl.col("arm").is_in([arm, FREE, FROZEN]))
    return frontier((own["accuracy"].to_numpy() - scale[0]) / scale[1], own[kind].to_numpy())


def _paired(table: pl.DataFrame, arm: str, reference: str, statistic: str) -> tuple[npt.NDArray, npt.NDArray]:
    """Values of two arms on the seeds where both have one."""
    left, right = (table.filter(pl.col("arm") == name).select(*SEED, statistic) for name in (arm, reference))
    both = left.join(right, on=SEED, how="inner", maintain_order="left").filter(
        pl.col(statistic).is_finite(), pl.col(f"{statistic}_right").is_finite()
    )
    return both[statistic].to_numpy(), both[f"{statistic}_right"].to_numpy()
