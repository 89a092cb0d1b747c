"""`anchored prepare NAME --check`: what lies there still gives the store, or the first difference is named; nothing is written."""

import json
import shutil
from pathlib import Path
from typing import Any

import image_sets
import numpy as np
import polars as pl
import pytest

from anchored.files import write_json, write_parquet
from anchored.paths import Paths
from anchored.preparation.step import prepare


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder in Waterbirds' format, and its plan."""
    image_sets.waterbirds(tmp_path / "birds")
    write_plan(tmp_path)
    prepare(json.loads((tmp_path / "plan.json").read_text()), "birds", Paths(tmp_path))
    return tmp_path


def write_plan(root: Path, **keys: Any) -> None:
    dataset = {"reader": "waterbirds", "folder": "birds", "size": 8, "published": False, "unseen_groups": True, **keys}
    write_json(root / "plan.json", image_sets.plan(birds=dataset))


def store(root: Path) -> Path:
    return root / "results" / "data" / "birds"


def test_what_is_unchanged_passes_and_is_listed(birds, run_cli) -> None:
    before = {path: path.read_bytes() for path in birds.rglob("*") if path.is_file() and "logs" not in path.parts}
    done = run_cli("prepare", "birds", "--check", root=birds)
    assert done.code == 0, done.err
    assert f"{store(birds)}: images.npy, index.parquet are as the manifest says (SHA-256)\n" in done.out
    assert "index: 12 lines, split, draw, y, a, source, group\n" in done.out
    assert "sources: the same digests of 12 encoded images in " in done.out
    assert "manifest: the same reader, labelled, classes, attributes, group_names, source, preprocessing\n" in done.out
    assert {path: path.read_bytes() for path in birds.rglob("*") if path.is_file() and "logs" not in path.parts} == before


def test_to_check_and_to_build_are_two_commands(birds, run_cli) -> None:
    """Somebody who asks for both would take the answer for one about the new store."""
    before = (store(birds) / "record.json").stat().st_mtime_ns
    done = run_cli("prepare", "birds", "--check", "--force", root=birds)
    assert done.code == 2
    assert "prepare cannot do --force together with --check." in done.err
    assert (store(birds) / "record.json").stat().st_mtime_ns == before


def edit(path: Path, old: str, new: str) -> None:
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


def swap_files(root: Path) -> None:
    first, second = (root / "birds" / f"{line:03d}.Species" / f"{line}.jpg" for line in (0, 1))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def flip_bit(root: Path) -> None:
    data = bytearray((store(root) / "images.npy").read_bytes())
    data[-1] ^= 1
    (store(root) / "images.npy").write_bytes(data)


DAMAGE = {
    "two files swapped": (
        swap_files, "dataset 'birds': sha256 differs for 2 of 12 images (first 000.Species/0.jpg, 001.Species/1.jpg).",
    ),
    "a label": (
        lambda root: edit(root / "birds" / "metadata.csv", "3,002.Species/2.jpg,0,0,1", "3,002.Species/2.jpg,1,0,1"),
        "y differs for 1 of 12 images (first 002.Species/2.jpg); group differs for 1 of 12 images",
    ),
    "a line less": (
        lambda root: edit(root / "birds" / "metadata.csv", "12,011.Species/11.jpg,1,2,1,/o/ocean/1.jpg\n", ""),
        "the store has the shape [12, 8, 8, 3], the plan gives [11, 8, 8, 3]; the index has 12 lines, the sources give 11.",
    ),
    "an image gone": (
        lambda root: (root / "birds" / "003.Species" / "3.jpg").unlink(),
        "1 of 12 images are missing or cannot be read: 003.Species/3.jpg.",
    ),
    "another size": (lambda root: write_plan(root, size=9), "the plan gives [12, 9, 9, 3]; preprocessing was {"),
    "another convention": (lambda root: write_plan(root, convention="kumar"), 'preprocessing was {"convention": "group-dro"'),
    "a source": (
        lambda root: (root / "birds" / "SOURCE.json").write_text('{"schema": 1, "name": "X", "version": "1", "licences": []}'),
        'source was {"name": "folder birds, as given"}, is {"name": "X", "version": "1", "licences": [], "note": ""}.',
    ),
    "a flipped bit": (flip_bit, "images.npy differs from its manifest."),
    "no index": (lambda root: (store(root) / "index.parquet").unlink(), "index.parquet is missing."),
    "no store": (lambda root: shutil.rmtree(store(root)), "manifest.json is missing."),
    "no manifest": (lambda root: (store(root) / "manifest.json").write_text("[]"), "is no manifest of a store."),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_difference_is_named(birds, run_cli, damage) -> None:
    change, sentence = DAMAGE[damage]
    change(birds)
    done = run_cli("prepare", "birds", "--check", root=birds)
    assert done.code == 3
    assert sentence in done.err
    assert done.out == ""


def test_a_store_without_digests_is_checked_by_its_labels(birds, run_cli) -> None:
    """Stores of an earlier version keep neither paths nor digests."""
    index = pl.read_parquet(store(birds) / "index.parquet").drop("path", "sha256")
    write_parquet(store(birds) / "index.parquet", index)
    manifest = json.loads((store(birds) / "manifest.json").read_text())
    from anchored.files import file_digest

    manifest["digests"]["index.parquet"] = file_digest(store(birds) / "index.parquet")
    write_json(store(birds) / "manifest.json", manifest)
    done = run_cli("prepare", "birds", "--check", root=birds)
    assert done.code == 0, done.err
    assert "the store has no digests of them" in done.out


def test_embedded_datasets_are_drawn_again(mini_copy, mini_plan, run_cli) -> None:
    """Another version of a library may draw other scenes; a store that says otherwise is found without a second one."""
    for name in mini_plan["datasets"]:
        done = run_cli("prepare", name, "--check", root=mini_copy.root)
        assert done.code == 0, done.err
        assert "sources: the same layers drawn again" in done.out
    name = next(name for name, entry in mini_plan["datasets"].items() if entry["labelled"])
    images = mini_copy.data(name) / "images.npy"
    pixels = np.load(images)
    pixels[0, 0, 0, 0] ^= 1
    np.save(images, pixels)
    manifest = json.loads((mini_copy.data(name) / "manifest.json").read_text())
    from anchored.files import file_digest

    manifest["digests"]["images.npy"] = file_digest(images)
    write_json(mini_copy.data(name) / "manifest.json", manifest)
    done = run_cli("prepare", name, "--check", root=mini_copy.root)
    assert done.code == 3
    assert "layer image is drawn otherwise" in done.err
