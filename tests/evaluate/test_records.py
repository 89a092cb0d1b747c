"""Counting predictions: against a slow count by hand, in any order of rows, one file or many at once."""

import hashlib
import struct
from typing import Any

import polars as pl
import pytest
from synthetic_study import make_plan, make_predictions

from anchored.errors import InputError
from anchored.evaluate.records import KEY, PREDICTION_COLUMNS, measure, measure_together

SIZES = (380, 20, 20, 380)


@pytest.fixture(scope="module")
def files() -> list[tuple[str, pl.DataFrame]]:
    plan = make_plan()
    jobs = [job for kind in ("baseline", "anchored") for job in plan[kind]]
    return [(f"{job}.parquet", make_predictions(plan, job, epochs=(4, 8)).select(PREDICTION_COLUMNS)) for job in jobs]


def by_hand(predictions: pl.DataFrame) -> list[dict[str, Any]]:
    """The metrics of every (cell, epoch, split), row by row."""
    models: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in predictions.iter_rows(named=True):
        models.setdefault(tuple(row[key] for key in KEY), []).append(row)
    return [one_by_hand(models[key]) for key in sorted(models)]


def one_by_hand(rows: list[dict[str, Any]]) -> dict[str, Any]:
    rows = sorted(rows, key=lambda row: row["row"])

    def accuracy(chosen: list[dict[str, Any]]) -> float | None:
        return sum(row["prediction"] == row["y"] for row in chosen) / len(chosen) if chosen else None

    groups = [accuracy([row for row in rows if row["group"] == group]) for group in range(len(SIZES))]
    classes = [accuracy([row for row in rows if row["y"] == y]) for y in sorted({row["y"] for row in rows})]
    worst = min(value for value in groups if value is not None)
    weights = [size / sum(SIZES) for size in SIZES]
    images = b"".join(struct.pack("<4i", row["row"], row["y"], row["a"], row["group"]) for row in rows)
    return {
        **{key: rows[0][key] for key in KEY},
        "n": len(rows),
        "average": accuracy(rows),
        "adjusted": None if None in groups else sum(value * weight for value, weight in zip(groups, weights, strict=True)),
        "worst_group": worst,
        "worst_group_id": groups.index(worst),
        "worst_class": min(classes),
        "single_class": len({row["prediction"] for row in rows}) == 1,
        **{f"group_{group}": value for group, value in enumerate(groups)},
        **{f"n_group_{group}": sum(row["group"] == group for row in rows) for group in range(len(SIZES))},
        "images": hashlib.sha256(images).hexdigest(),
    }


def test_metrics_are_those_counted_by_hand(files: list[tuple[str, pl.DataFrame]]) -> None:
    for source, predictions in files:
        for found, expected in zip(measure(predictions, SIZES, source).iter_rows(named=True), by_hand(predictions), strict=True):
            assert found == pytest.approx(expected)


def test_an_empty_group_and_a_missing_class_count_nowhere(files: list[tuple[str, pl.DataFrame]]) -> None:
    """Class 1 of 0, 1, 2 and a group that no test image has."""
    source, predictions = files[0]
    odd = predictions.with_columns(pl.col("y", "prediction") * 2).filter(pl.col("group") != 1)
    for found, expected in zip(measure(odd, SIZES, source).iter_rows(named=True), by_hand(odd), strict=True):
        assert found == pytest.approx(expected)
        assert found["group_1"] is found["adjusted"] is None


def test_the_order_of_rows_says_nothing(files: list[tuple[str, pl.DataFrame]]) -> None:
    source, predictions = files[0]
    expected = measure(predictions, SIZES, source)
    halves = (predictions[0::2], predictions[1::2])
    for other in (predictions.sample(fraction=1, shuffle=True, seed=3), predictions.reverse(), pl.concat(halves)):
        assert measure(other, SIZES, source).equals(expected)


def test_files_at_once_have_the_metrics_of_each(files: list[tuple[str, pl.DataFrame]]) -> None:
    alone = pl.concat([measure(predictions, SIZES, source) for source, predictions in files]).sort(KEY)
    assert measure_together(files, SIZES).sort(KEY).equals(alone)


def test_a_bad_file_among_good_ones_is_named(files: list[tuple[str, pl.DataFrame]]) -> None:
    source, predictions = files[1]
    bad = (source, pl.concat([predictions, predictions[:1]]))
    with pytest.raises(InputError, match=f"^{source} predicts .* more than once"):
        measure_together([files[0], bad, files[2]], SIZES)
