"""All comparisons of an experiment: which picks are compared with which, and their differences as one table.

scope     arm picked from                  compared with
tuned     its whole grid                   the baseline, tuned
same-lr   configurations at the            the baseline at the reference rate, and the baseline tuned: an anchor
          reference learning rate          may win only because that rate is too high without one
(both)    contrast pairs of the plan       the other arm, picked in the same scope
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from anchored.evaluate.comparison import STATISTICS, difference, generator, resample
from anchored.evaluate.selection import SAME_LR, SEED, TUNED
from anchored.evaluate.study import Experiment

Pick = tuple[str, int]
"""A trained model: cell and epoch."""

BASELINE = "baseline"
CONTRAST = "contrast"


@dataclass(frozen=True)
class Models:
    """The test predictions of an experiment's picked models, over one common list of images.

    Attributes:
        index: the row of `correct` of every pick.
        correct: (picks, images).
        groups: (images,).
        train_sizes: training images of each group.
    """

    index: Mapping[Pick, int]
    correct: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.integer]
    train_sizes: Sequence[int]


@dataclass(frozen=True)
class _Pair:
    kind: str
    rule: str
    scope: str
    arm: str
    reference_scope: str
    reference: str


def stack(predictions: pl.DataFrame, train_sizes: Sequence[int]) -> Models:
    """Test predictions of several picks as one matrix; the caller has checked that all picks predict the same images."""
    ordered = predictions.filter(pl.col("split") == "test").sort("cell", "epoch", "row")
    picks = ordered.select("cell", "epoch").unique(maintain_order=True).rows()
    correct = (ordered["prediction"] == ordered["y"]).to_numpy().reshape(len(picks), -1)
    groups = ordered["group"].to_numpy()[: correct.shape[1]]
    return Models({(cell, epoch): row for row, (cell, epoch) in enumerate(picks)}, correct, groups, tuple(train_sizes))


def compare(picks: pl.DataFrame, models: Models, experiment: Experiment, *, seed: int) -> pl.DataFrame:
    """One row for every pair of picks and every statistic.

    Args:
        picks: `selection.select` for all rules and scopes of the experiment.
        models: the picked models.
        experiment: its arms, baseline, contrasts and number of draws.
        seed: the plan's.

    Returns:
        experiment, kind (baseline or contrast), rule, scope, arm, reference_scope, reference, the fields of
        `comparison.Difference`, and per seed which model was compared: seed_names, cells, epochs, reference_cells,
        reference_epochs (lists of equal length). Pairs without a common seed are left out.
    """
    rng = generator(seed, "bootstrap images", experiment.name)
    resampled = resample(models.correct, models.groups, train_sizes=models.train_sizes, draws=experiment.draws, rng=rng)
    chosen = _by_arm(picks)
    rows = []
    for pair in _pairs(experiment, sorted({scope for _, scope, _ in chosen}, key=(TUNED, SAME_LR).index)):
        arm = chosen.get((pair.rule, pair.scope, pair.arm), {})
        reference = chosen.get((pair.rule, pair.reference_scope, pair.reference), {})
        seeds = [name for name in arm if name in reference]
        if not seeds:
            continue
        left, right = [arm[name] for name in seeds], [reference[name] for name in seeds]
        for statistic in STATISTICS:
            outcome = difference(
                resampled,
                [models.index[pick] for pick in left],
                [models.index[pick] for pick in right],
                statistic=statistic,
                rng=generator(seed, "bootstrap seeds", experiment.name, *seeds),
            )
            rows.append(
                {"experiment": experiment.name, **asdict(pair), **asdict(outcome), "seed_names": seeds,
                 "cells": [cell for cell, _ in left], "epochs": [epoch for _, epoch in left],
                 "reference_cells": [cell for cell, _ in right], "reference_epochs": [epoch for _, epoch in right]}
            )  # fmt: skip
    return pl.DataFrame(rows, schema=SCHEMA)


SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("experiment", "kind", "rule", "scope", "arm", "reference_scope"), pl.String),
    **dict.fromkeys(("reference", "statistic"), pl.String),
    **dict.fromkeys(("difference", "sd", "low", "high"), pl.Float64),
    **dict.fromkeys(("wins", "ties", "seeds", "draws"), pl.Int32),
    "seed_names": pl.List(pl.String), "cells": pl.List(pl.String), "epochs": pl.List(pl.Int32),
    "reference_cells": pl.List(pl.String), "reference_epochs": pl.List(pl.Int32),
}  # fmt: skip


def _pairs(experiment: Experiment, scopes: Sequence[str]) -> Iterator[_Pair]:
    for rule in experiment.rules:
        for scope in scopes:
            references = (TUNED,) if scope == TUNED else (SAME_LR, TUNED)
            for arm in experiment.arms:
                for reference in references:
                    if (arm, scope) != (experiment.baseline, reference):
                        yield _Pair(BASELINE, rule, scope, arm, reference, experiment.baseline)
        for scope in scopes:
            for first, second in experiment.contrasts:
                yield _Pair(CONTRAST, rule, scope, first, scope, second)


def _by_arm(picks: pl.DataFrame) -> dict[tuple[str, str, str], dict[str, Pick]]:
    """(rule, scope, arm) to the pick of each seed, seeds in sorted order."""
    chosen: dict[tuple[str, str, str], dict[str, Pick]] = {}
    for row in picks.sort(*SEED).iter_rows(named=True):
        seeds = chosen.setdefault((row["rule"], row["scope"], row["arm"]), {})
        seeds[f"{row['backbone']}/{row['replicate']}"] = (row["cell"], row["epoch"])
    return chosen
