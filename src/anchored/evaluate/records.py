"""Per-image predictions to one row of metrics for every (cell, epoch, split).

Predictions are counted by group and by class; every metric follows from these counts (`metrics.py`).
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from anchored.errors import InputError
from anchored.evaluate import metrics
from anchored.evaluate.audit import listing
from anchored.evaluate.study import Study

PREDICTION_COLUMNS = ("cell", "epoch", "split", "row", "y", "a", "group", "prediction")
"""The columns read from a predictions file; logits are stored for later questions and not read."""

KEY = ("cell", "epoch", "split")
SPLITS = ("val", "test")

_IMAGE = ("row", "y", "a", "group")


def measure(predictions: pl.DataFrame, train_sizes: Sequence[int], source: str) -> pl.DataFrame:
    """One row of metrics for every (cell, epoch, split) of `predictions`.

    Args:
        predictions: the columns `PREDICTION_COLUMNS`, in any order of rows.
        train_sizes: number of training images of groups 0, 1, ...; also says how many groups there are.
        source: what to call the predictions in an error.

    Returns:
        cell, epoch, split, n, average, adjusted, worst_group, worst_group_id, worst_class, single_class, then group_<g>
        (accuracy) and n_group_<g> (images) for each group, then `images`: a digest of the images, labels and groups
        that were predicted.

    Raises:
        InputError: an image occurs twice, a group is unknown, a value is missing, or an epoch lacks a split.
    """
    _check(predictions, len(train_sizes), source)
    groups = range(len(train_sizes))
    classes = sorted(predictions["y"].unique().to_list())
    hit = pl.col("prediction") == pl.col("y")
    counts = (
        predictions.sort(*KEY, "row")
        .group_by(KEY, maintain_order=True)
        .agg(
            pl.len().cast(pl.Int32).alias("n"),
            (pl.col("prediction").n_unique() == 1).alias("single_class"),
            *[(pl.col("group") == g).sum().cast(pl.Int32).alias(f"n_group_{g}") for g in groups],
            *[(hit & (pl.col("group") == g)).sum().alias(f"hits_group_{g}") for g in groups],
            *[(pl.col("y") == y).sum().alias(f"n_class_{y}") for y in classes],
            *[(hit & (pl.col("y") == y)).sum().alias(f"hits_class_{y}") for y in classes],
        )
        .with_columns(pl.Series("images", _digests(predictions), dtype=pl.String))
    )
    sizes = counts.select(f"n_group_{g}" for g in groups).to_numpy()
    hits = counts.select(f"hits_group_{g}" for g in groups).to_numpy()
    by_class = [counts.select(f"{kind}_class_{y}" for y in classes).to_numpy() for kind in ("hits", "n")]
    accuracies = metrics.group_accuracies(hits, sizes)
    worst, worst_id = metrics.worst_group_accuracy(hits, sizes)
    columns = {
        "average": metrics.average_accuracy(hits, sizes),
        "adjusted": metrics.adjusted_average(hits, sizes, np.asarray(train_sizes)),
        "worst_group": worst,
        "worst_class": metrics.worst_class_accuracy(*by_class),
        **{f"group_{g}": accuracies[:, g] for g in groups},
    }
    values = [pl.Series(name, value).fill_nan(None) for name, value in columns.items()]
    return counts.with_columns(pl.Series("worst_group_id", worst_id.astype(np.int16)), *values).select(
        *KEY, "n", "average", "adjusted", "worst_group", "worst_group_id", "worst_class", "single_class",
        *[f"group_{g}" for g in groups], *[f"n_group_{g}" for g in groups], "images",
    )  # fmt: skip


def describe(measured: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Puts the identity and hyper-parameters of each cell before its metrics; rows in the plan's order, then epoch, val, test."""
    cells = [study.cells[name] for name in measured["cell"].unique().to_list()]
    place = {name: index for index, name in enumerate(study.cells)}
    identity = pl.DataFrame(
        [
            {
                "cell": cell.name, "experiment": cell.experiment, "dataset": cell.dataset, "backbone": cell.backbone,
                "family": cell.family, "arm": cell.arm, "configuration": cell.configuration,
                "replicate": cell.replicate, "seed": cell.seed, "place": place[cell.name],
                **{key: cell.hyper.get(key) for key in study.hyper_columns()},
            }
            for cell in cells
        ],
        schema={
            **dict.fromkeys(("cell", "experiment", "dataset", "backbone", "family", "arm", "configuration"), pl.String),
            "replicate": pl.Int32, "seed": pl.Int64, "place": pl.Int32,
            **dict.fromkeys(study.hyper_columns(), pl.Float64),
        },
        strict=False,
    )  # fmt: skip
    return (
        identity.join(measured, on="cell", how="inner", validate="1:m")
        .sort("place", "epoch", pl.col("split") == "test")
        .drop("place")
    )


def check_same_images(described: pl.DataFrame, experiment: str) -> None:
    """Paired comparisons need the same test images, labels and groups in every cell and epoch of an experiment.

    Raises:
        InputError: they differ; names cells that disagree.
    """
    test = described.filter(pl.col("experiment") == experiment, pl.col("split") == "test")
    usual = test.group_by("images").len().sort("len", "images", descending=[True, False])["images"]
    if len(usual) < 2:
        return
    normal = test.filter(pl.col("images") == usual[0])
    odd = test.filter(pl.col("images") != usual[0])
    names = odd["cell"].unique(maintain_order=True).to_list()
    raise InputError(
        f"experiment {experiment}: the test images of {len(names)} cells differ from the others', first "
        f"{listing(names)} ({odd['n'][0]} images) against {normal['cell'][0]} ({normal['n'][0]} images).",
        "all cells of an experiment have to predict the same test images: remove their folders in results/runs and run "
        "`anchored run` to train them on the present data.",
    )


def _check(predictions: pl.DataFrame, group_count: int, source: str) -> None:
    repair = "the file does not belong to this plan and data, or is damaged: remove its folder and run its job again."
    if sum(predictions.null_count().row(0)):
        raise InputError(f"{source} has missing values in {listing(_with_nulls(predictions))}.", repair)
    strange = sorted(set(predictions["group"].unique().to_list()) - set(range(group_count)))
    if strange:
        raise InputError(f"{source} has images of group {listing(map(str, strange))}; the data set has 0 to "
                         f"{group_count - 1}.", repair)  # fmt: skip
    unknown = sorted(set(predictions["split"].unique().to_list()) - set(SPLITS))
    if unknown:
        raise InputError(f"{source} has a split called {listing(unknown)}; only val and test are evaluated.", repair)
    twice = predictions.select(*KEY, "row").is_duplicated()
    if twice.any():
        first = predictions.filter(twice).row(0, named=True)
        raise InputError(
            f"{source} predicts {first['split']} image {first['row']} of cell {first['cell']}, epoch {first['epoch']}, "
            "more than once.", repair,
        )  # fmt: skip
    splits = predictions.group_by("cell", "epoch").agg(pl.col("split").n_unique()).sort("cell", "epoch")
    lacking = splits.filter(pl.col("split") < len(SPLITS))
    if len(lacking):
        cell, epoch, _ = lacking.row(0)
        raise InputError(f"{source} lacks the val or the test split of {len(lacking)} epochs, first cell {cell}, epoch "
                         f"{epoch}.", repair)  # fmt: skip


def _with_nulls(predictions: pl.DataFrame) -> list[str]:
    return [name for name in predictions.columns if predictions[name].null_count()]


def _digests(predictions: pl.DataFrame) -> list[str]:
    """SHA-256 of (row, y, a, group) sorted by row, for every key in sorted order."""
    ordered = predictions.sort(*KEY, "row")
    lengths = ordered.group_by(KEY, maintain_order=True).len()["len"].to_list()
    values = np.ascontiguousarray(ordered.select(pl.col(_IMAGE).cast(pl.Int32)).to_numpy(), dtype="<i4")
    bounds = np.cumsum([0, *lengths])
    return [hashlib.sha256(values[a:b].tobytes()).hexdigest() for a, b in pairwise(bounds)]
