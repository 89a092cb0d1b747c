"""Per-image predictions: the durable result of a cell. Every metric and table is computed from them alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from anchored.data.store import Store

SPLITS = ("val", "test")


def evaluation_rows(store: Store, cell: Mapping[str, Any]) -> dict[str, NDArray[np.int64]]:
    """Rows of the store that a cell is evaluated on, by split."""
    return {split: store.rows(split, cell["draw"]) for split in SPLITS}


def prediction_frame(cell: str, epoch: int, split: str, rows: NDArray[np.int64], logits: NDArray, store: Store) -> pl.DataFrame:
    """One line an image.

    Args:
        cell: identity.
        epoch: 1-based number of the epoch after which the predictions were made; 0 for a probe.
        split: val or test.
        rows: (N,) images of the store.
        logits: (N, classes).
        store: where the labels are.
    """
    count = len(rows)
    labels = {name: pl.Series(store.column(name, rows), dtype=pl.Int16) for name in ("y", "a", "group")}
    return pl.DataFrame(
        {
            "cell": pl.repeat(cell, count, dtype=pl.String, eager=True),
            "epoch": pl.repeat(epoch, count, dtype=pl.Int16, eager=True),
            "split": pl.repeat(split, count, dtype=pl.String, eager=True),
            "row": pl.Series(rows, dtype=pl.Int32),
            **labels,
            "prediction": pl.Series(logits.argmax(1), dtype=pl.Int16),
            "logits": pl.Series(logits.astype(np.float32)).arr.to_list(),
        }
    )
