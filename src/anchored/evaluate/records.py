"""Per-image predictions to one row of metrics for every (cell, epoch, split).

Predictions are counted by group and by class; every metric follows from these counts (`metrics.py`).
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

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
    _check_values(predictions, len(train_sizes), source)
    ordered = _Ordered.of(predictions)
    _check_keys(predictions, ordered, source)
    y, group, prediction = (ordered.column(name) for name in ("y", "group", "prediction"))
    hit = prediction == y
    # Classes between the lowest and the highest that do not occur have no images, and count nowhere.
    kind, classes = y - y.min(), int(y.max() - y.min()) + 1
    groups = range(len(train_sizes))
    sizes, hits = ordered.count(group, len(groups)), ordered.count(group, len(groups), where=hit)
    accuracies = metrics.group_accuracies(hits, sizes)
    worst, worst_id = metrics.worst_group_accuracy(hits, sizes)
    by_class = [ordered.count(kind, classes, where=hit), ordered.count(kind, classes)]
    columns = {
        "average": metrics.average_accuracy(hits, sizes),
        "adjusted": metrics.adjusted_average(hits, sizes, np.asarray(train_sizes)),
        "worst_group": worst,
        "worst_class": metrics.worst_class_accuracy(*by_class),
        **{f"group_{g}": accuracies[:, g] for g in groups},
    }
    return ordered.keys.with_columns(
        pl.Series("n", ordered.lengths, dtype=pl.Int32),
        pl.Series("worst_group_id", worst_id.astype(np.int16)),
        pl.Series("single_class", ordered.spread(prediction) == 0),
        *[pl.Series(name, value).fill_nan(None) for name, value in columns.items()],
        *[pl.Series(f"n_group_{g}", sizes[:, g], dtype=pl.Int32) for g in groups],
        pl.Series("images", ordered.digests(), dtype=pl.String),
    ).select(
        *KEY, "n", "average", "adjusted", "worst_group", "worst_group_id", "worst_class", "single_class",
        *[f"group_{g}" for g in groups], *[f"n_group_{g}" for g in groups], "images",
    ).sort(KEY)  # fmt: skip


def measure_together(parts: Sequence[tuple[str, pl.DataFrame]], train_sizes: Sequence[int]) -> pl.DataFrame:
    """`measure` of several files, each with its name: at once, and one after the other where that fails, to name the file.

    The metrics of a model do not depend on what is measured beside it, and a call costs more than counting the images of a model.
    """
    if len(parts) > 1:
        with suppress(InputError):
            return measure(pl.concat([frame for _, frame in parts]), train_sizes, "these files")
    return pl.concat([measure(frame, train_sizes, source) for source, frame in parts])


@dataclass(frozen=True)
class _Ordered:
    """Predictions by key, then row: every (cell, epoch, split) is a run of rows.

    Attributes:
        frame: the predictions.
        keys: the key of every run.
        starts: the first row of every run.
    """

    frame: pl.DataFrame
    keys: pl.DataFrame
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, predictions: pl.DataFrame) -> "_Ordered":
        """Sorts where the rows do not lie in runs already, as the step `finetune` writes them."""
        found = cls._as_they_lie(predictions)
        rising = np.diff(found.column("row"), prepend=-1) > 0
        rising[found.starts] = True
        if rising.all() and not found.keys.is_duplicated().any():
            return found
        return cls._as_they_lie(predictions.sort(*KEY, "row"))

    @classmethod
    def _as_they_lie(cls, frame: pl.DataFrame) -> "_Ordered":
        begins = frame.select(pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in KEY)).to_series()
        starts = begins.arg_true()
        return cls(frame, frame.select(KEY)[starts], starts.to_numpy().astype(np.int64))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of rows of every run."""
        return np.diff(self.starts, append=len(self.frame))

    def column(self, name: str) -> NDArray[np.int64]:
        """A column of whole numbers."""
        return self.frame[name].to_numpy().astype(np.int64)

    def count(self, values: NDArray[np.int64], kinds: int, *, where: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """(runs, kinds): how often a run has each of the values 0, 1, ..., of all its rows or of some."""
        place = np.repeat(np.arange(len(self.starts)) * kinds, self.lengths) + values
        return np.bincount(place if where is None else place[where], minlength=len(self.starts) * kinds).reshape(-1, kinds)

    def spread(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The greatest minus the smallest value of every run."""
        return np.maximum.reduceat(values, self.starts) - np.minimum.reduceat(values, self.starts)

    def digests(self) -> list[str]:
        """SHA-256 of (row, y, a, group) of every run."""
        values = np.stack([self.frame[name].to_numpy() for name in _IMAGE], axis=1).astype("<i4")
        bounds = [*self.starts.tolist(), len(values)]
        return [hashlib.sha256(values[a:b].tobytes()).hexdigest() for a, b in pairwise(bounds)]


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


_REPAIR = "the file does not belong to this plan and data, or is damaged: remove its folder and run its job again."


def _check_values(predictions: pl.DataFrame, group_count: int, source: str) -> None:
    if sum(predictions.null_count().row(0)):
        raise InputError(f"{source} has missing values in {listing(_with_nulls(predictions))}.", _REPAIR)
    strange = sorted(set(predictions["group"].unique().to_list()) - set(range(group_count)))
    if strange:
        raise InputError(f"{source} has images of group {listing(map(str, strange))}; the data set has 0 to "
                         f"{group_count - 1}.", _REPAIR)  # fmt: skip


def _check_keys(predictions: pl.DataFrame, ordered: _Ordered, source: str) -> None:
    unknown = sorted(set(ordered.keys["split"].to_list()) - set(SPLITS))
    if unknown:
        raise InputError(f"{source} has a split called {listing(unknown)}; only val and test are evaluated.", _REPAIR)
    again = np.diff(ordered.column("row"), prepend=-1) == 0
    again[ordered.starts] = False
    if again.any():
        first = predictions.filter(predictions.select(*KEY, "row").is_duplicated()).row(0, named=True)
        raise InputError(
            f"{source} predicts {first['split']} image {first['row']} of cell {first['cell']}, epoch {first['epoch']}, "
            "more than once.", _REPAIR,
        )  # fmt: skip
    splits = ordered.keys.group_by("cell", "epoch").agg(pl.col("split").n_unique()).sort("cell", "epoch")
    lacking = splits.filter(pl.col("split") < len(SPLITS))
    if len(lacking):
        cell, epoch, _ = lacking.row(0)
        raise InputError(f"{source} lacks the val or the test split of {len(lacking)} epochs, first cell {cell}, epoch "
                         f"{epoch}.", _REPAIR)  # fmt: skip


def _with_nulls(predictions: pl.DataFrame) -> list[str]:
    return [name for name in predictions.columns if predictions[name].null_count()]
