"""What is written into a packed store comes back from it, and its manifest counts the groups of one draw."""

import numpy as np
import polars as pl

from anchored.data.store import open_store
from anchored.preparation.writing import group_counts, write_store


def test_layers_come_back_as_written(tmp_path):
    """Channels of several layers share one array; a wrong offset would swap masks and colours."""
    rng = np.random.default_rng(0)
    depths = {"image": 3, "mask": 1, "other": 2}
    layers = {name: rng.integers(0, 256, (5, 4, 4, depth), dtype=np.uint8) for name, depth in depths.items()}
    write_store(tmp_path / "toy", layers, pl.DataFrame({"row": range(5)}), {"note": "x"})
    store = open_store(tmp_path / "toy")
    assert all((store.layer(name) == array).all() for name, array in layers.items())
    assert store.name == "toy"
    assert store.manifest["note"] == "x"
    assert np.load(tmp_path / "toy/images.npy").dtype == np.uint8


def test_group_counts_are_those_of_one_draw():
    """Counts over all draws would be five times too large in a table."""
    index = pl.DataFrame({"split": ["train"] * 6, "draw": [0, 0, 0, 1, 1, 1], "group": [0, 0, 3, 1, 2, 2]})
    assert group_counts(index) == {"train": {"0": 2, "3": 1}}
    assert group_counts(pl.DataFrame({"row": [0]})) == {}
