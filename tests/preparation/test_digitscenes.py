"""The embedded dataset: disjoint sources, exact groups, the same bytes in every process."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_digits

from anchored.data.store import open_store
from anchored.paths import Paths
from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.preparation import digitscenes
from anchored.preparation.digitscenes import build_bank, build_labelled


def entries(**scenes) -> dict[str, dict]:
    """Plan entries of a small dataset and its bank, `scenes` laid over small defaults."""
    small = {"reader": "digitscenes", "train": 40, "balanced": 8, "val": 8, "test": 8, "draws": 1}
    datasets = {"scenes": small | scenes, "bank": {"reader": "digitscenes-bank", "scenes": "scenes", "size": 200}}
    config = {"name": "x", "datasets": datasets, "backbones": {}, "fims": {}, "experiments": {}}
    return expand(Config.model_validate(config))["datasets"]


def digit_parts(entry: dict) -> dict[str, set[int]]:
    """The division of the digits, computed again from its seed: 55 / 15 / 30 % of 1,797."""
    order = np.random.default_rng(entry["split_seed"]).permutation(1797)
    return {"bank": set(order[:988]), "val": set(order[988:1258]), "test": set(order[1258:])}


def test_rebuild_in_another_process_gives_the_same_bytes(mini, mini_plan, tmp_path):
    """Results are compared between machines by digest; a generator seeded by the process would show here."""
    code = (
        "import json; from pathlib import Path; from anchored.preparation.step import prepare; from anchored.paths import Paths\n"
        f"plan = json.loads(Path({str(mini.root / 'plan.json')!r}).read_text())\n"
        f"for name in plan['datasets']: prepare(plan, name, Paths(Path({str(tmp_path)!r})))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for name in mini_plan["datasets"]:
        for file in ("images.npy", "index.parquet", "manifest.json"):
            assert (Paths(tmp_path).data(name) / file).read_bytes() == (mini.data(name) / file).read_bytes(), (name, file)


def test_labelled_splits_use_disjoint_digits(mini, mini_plan):
    """A digit in train and test would let a backbone remember instead of recognise."""
    parts = digit_parts(mini_plan["datasets"]["scenes"])
    assert sum(map(len, parts.values())) == 1797
    index = open_store(mini.data("scenes")).index
    for split, part in {"train": "bank", "balanced": "bank", "val": "val", "test": "test"}.items():
        used = set(index.filter(pl.col("split") == split)["source"])
        assert used
        assert used <= parts[part], split


def test_bank_uses_its_own_digits_of_all_classes(monkeypatch):
    """The bank stores no labels, so its digits are watched while it is painted."""
    used = set()
    original = digitscenes._Painter._cut_out

    def watched(self, source, side):
        used.add(source)
        return original(self, source, side)

    monkeypatch.setattr(digitscenes._Painter, "_cut_out", watched)
    entry = entries()["bank"]
    build_bank(entry)
    assert used <= digit_parts(entry["scenes"])["bank"]
    assert set(load_digits().target[sorted(used)]) == set(range(10))


def test_splits_use_disjoint_texture_rows(monkeypatch):
    """Shared texture would make the place of a test image a memory. The texture is replaced by one that says its own row."""
    rows = np.tile(np.arange(512.0)[:, None], (1, 512))
    monkeypatch.setattr(digitscenes, "_textures", lambda: (rows, rows))
    painter = digitscenes._Painter(entries(scene={"texture": 1 / 4096, "place_tint": 0, "gain": 0})["scenes"])
    rng = np.random.default_rng(0)
    seen = {
        split: {
            row
            for place in (0, 1)
            for _ in range(1500)
            for row in np.unique(np.rint((painter._background(split, place, rng)[..., 0] - 0.5) * 4096).astype(int))
        }
        for split in ("bank", "val", "test")
    }
    assert seen == {"bank": set(range(270)), "val": set(range(270, 341)), "test": set(range(341, 512))}


@pytest.mark.parametrize(
    ("train", "correlation", "expected"),
    [
        (800, 0.95, [380, 20, 20, 380]),  # the demo's
        (800, 0.5, [200, 200, 200, 200]),
        (40, 1.0, [20, 0, 0, 20]),
        (41, 0.9, [19, 2, 2, 18]),
        (100, 0.0, [0, 50, 50, 0]),
    ],
)
def test_training_groups_have_exact_sizes(train, correlation, expected):
    """20 images a minority group are the experiment: a random share would change it from seed to seed."""
    _, columns = build_labelled(entries(train=train, correlation=correlation)["scenes"])
    chosen = columns["split"] == "train"
    assert np.bincount(2 * columns["y"][chosen] + columns["a"][chosen], minlength=4).tolist() == expected


def test_other_splits_are_balanced(mini):
    """The worst group of 48 test images must not be one of 3."""
    index = open_store(mini.data("scenes")).index
    sizes = index.group_by("split", "draw", "group").len()
    assert sizes.filter(pl.col("split") == "val")["len"].to_list() == [10] * 8
    assert sizes.filter(pl.col("split") == "test")["len"].to_list() == [12] * 4
    assert sizes.filter(pl.col("split") == "balanced")["len"].to_list() == [16] * 4


def test_index_is_consistent(mini, mini_plan):
    """Group = 2 y + a, y from the digit's class, rows numbered from 0: tables are computed from these columns alone."""
    index = open_store(mini.data("scenes")).index
    assert index["row"].to_list() == list(range(len(index)))
    assert (index["group"] == 2 * index["y"] + index["a"]).all()
    digits = load_digits().target[index["source"].to_numpy()]
    first, second = mini_plan["datasets"]["scenes"]["classes"]
    assert np.isin(digits, first).tolist() == (index["y"] == 0).to_list()
    assert np.isin(digits, second).tolist() == (index["y"] == 1).to_list()
    assert set(index.filter(pl.col("split").is_in(["train", "val"]))["draw"]) == {0, 1}
    assert set(index.filter(pl.col("split").is_in(["test", "balanced"]))["draw"]) == {-1}


def test_place_shows_in_the_colour(mini):
    """`a` must be what the picture shows: grass is tinted green, gravel is not (PLACE_COLOURS)."""
    store = open_store(mini.data("scenes"))
    corners = store.layer("image")[:, [0, 0, -1, -1], [0, -1, 0, -1]].astype(float).mean(1)
    green = corners[:, 1] - (corners[:, 0] + corners[:, 2]) / 2
    gravel = store.index["a"].to_numpy() == 1
    assert ((green > 11) == ~gravel).mean() > 0.98  # 11: midway between +49 and -27, the colours' own values


def test_draws_differ_and_test_is_shared(mini):
    """Replicates with one draw would give an interval of zero width."""
    store = open_store(mini.data("scenes"))
    first, second = (store.layer("image")[store.rows("train", draw)] for draw in (0, 1))
    assert (first != second).any(axis=(1, 2, 3)).all()
    assert store.rows("test", 0).tolist() == store.rows("test", 1).tolist()


def test_bank_stores_no_labels(mini):
    """Whoever pre-trains on the bank must not be able to look at a label, even by mistake."""
    store = open_store(mini.data("bank"))
    assert store.index.columns == ["row"]
    assert store.manifest["groups"] == {}
    assert store.manifest["labelled"] is False


def test_masks_and_backgrounds_recompose_the_images(mini):
    """image = (1 - alpha) * background + alpha * tint with one tint an image and channel, up to rounding of all three."""
    store = open_store(mini.data("bank"))
    image, mask, background = (store.layer(name).astype(float) for name in ("image", "mask", "background"))
    alpha = mask / 255
    over = image - (1 - alpha) * background
    tint = (over * alpha).sum((1, 2), keepdims=True) / (alpha**2).sum((1, 2), keepdims=True)
    assert np.abs(over - alpha * tint).max() < 2
    assert tint.min() > 0.7 * 255
    assert (mask.max((1, 2)) > 200).all()
    assert np.abs(over - background * alpha)[np.broadcast_to(mask == 0, image.shape)].max() <= 1
