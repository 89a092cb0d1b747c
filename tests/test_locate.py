"""Which files a command looks at before it says "nothing to do": lists by their content, archives by size and time."""

import os
from pathlib import Path

import image_sets
import pytest
from test_read_images import as_folder, as_parquet, as_shards, as_tar, as_zip

from anchored import file_digests, record
from anchored.paths import Paths
from anchored.preparation import step
from anchored.preparation.step import prepare
from anchored.steps import foreign_inputs


def above(folder: Path) -> Path:
    """The folder around the one of the archive; whoever made it says what it is."""
    image_sets.waterbirds(folder / "waterbirds_v1.0")
    (folder / "SOURCE.json").write_text('{"schema": 1, "name": "X", "version": "1", "licences": []}')
    return folder


WALK = os.walk
PARTS = {
    "waterbirds": lambda root: (image_sets.waterbirds(root / "set"), {"published": False}, ["metadata.csv"]),
    "waterbirds inside": lambda root: (above(root / "set"), {"published": False}, ["metadata.csv", "SOURCE.json"]),
    "folder": lambda root: (image_sets.own(root / "set", "ab" * 6, "xxyy" * 3, image_sets.SPLITS), {}, ["metadata.csv"]),
    "celeba": lambda root: (
        image_sets.celeba(root / "set", images="zip"), {"published": False},
        ["list_attr_celeba.csv", "list_eval_partition.csv", "img_align_celeba.zip"],
    ),
    "celeba whole": lambda root: (image_sets.celeba(root / "set", images="whole"), {"published": False}, ["archive.zip"]),
    "parquet": lambda root: (image_sets.mirror(root / "set"), {}, sorted(image_sets.MIRROR)),
    "images": lambda root: (as_folder(root / "set"), {}, []),
    "images tar": lambda root: (as_tar(root / "set"), {}, ["set.tar"]),
    "images zip": lambda root: (as_zip(root / "set"), {}, ["set.zip"]),
    "images shards": lambda root: (as_shards(root / "set"), {}, [f"train-{number:04d}.tar" for number in range(3)]),
    "images parquet": lambda root: (as_parquet(root / "set"), {}, [f"train-{part}.parquet" for part in range(3)]),
}  # fmt: skip


def make(root: Path, part: str) -> tuple[dict, list[str]]:
    place, keys, files = PARTS[part](root)
    return image_sets.plan(set={"reader": part.split()[0], "folder": place.relative_to(root).as_posix(), "size": 8, **keys}), files


@pytest.mark.parametrize("part", PARTS)
def test_a_changed_list_or_archive_is_noticed(tmp_path, monkeypatch, part) -> None:
    plan, files = make(tmp_path, part)
    paths = Paths(tmp_path)
    watched = foreign_inputs("datasets", "set", plan, paths)
    assert [path.name for path in watched] == files
    prepare(plan, "set", paths)
    built: list[str] = []
    monkeypatch.setattr(step, "write_store", lambda *_, **__: built.append(part) or {"shape": [0], "groups": {}})
    prepare(plan, "set", paths)
    assert not built
    for number, path in enumerate(watched, start=1):
        if path.suffix in (".csv", ".json"):
            path.write_text(path.read_text() + "\n")
        else:
            os.utime(path, ns=(0, number))
        record_of_before = (paths.data("set") / "record.json").read_bytes()
        prepare(plan, "set", paths)
        assert len(built) == number
        assert (paths.data("set") / "record.json").read_bytes() != record_of_before


def test_archives_are_not_read_to_say_nothing_to_do(tmp_path, monkeypatch) -> None:
    """Hashing ImageNet takes longer than any step that has nothing to do."""
    plan, _ = make(tmp_path, "images tar")
    prepare(plan, "set", Paths(tmp_path))
    read: list[str] = []
    real = file_digests.file_digest
    monkeypatch.setattr(file_digests, "file_digest", lambda path: read.append(path.name) or real(path))
    prepare(plan, "set", Paths(tmp_path))
    assert "set.tar" not in read
    assert "images.npy" in read


def test_results_are_read_whatever_their_suffix(tmp_path) -> None:
    """Parquet files that a step made are small, and their content is what counts."""
    path = tmp_path / "made.parquet"
    path.write_bytes(b"1")
    step = record.Step("evaluate", "all", {}, Paths(tmp_path), {path: "anchored finetune x"}, [], tmp_path / "record.json")
    first = step._input_digests()
    os.utime(path, ns=(0, 1))
    assert step._input_digests() == first
    foreign = record.Step("prepare", "x", {}, Paths(tmp_path), {path: record.FOREIGN}, [], tmp_path / "record.json")
    before = foreign._input_digests()
    os.utime(path, ns=(0, 2))
    assert foreign._input_digests() != before


def test_a_training_bank_watches_what_its_dataset_does(tmp_path) -> None:
    image_sets.waterbirds(tmp_path / "birds")
    plan = image_sets.plan(
        birds={"reader": "waterbirds", "folder": "birds"}, bank={"reader": "training-images", "of": "birds"}
    )
    paths = Paths(tmp_path)
    assert foreign_inputs("datasets", "bank", plan, paths) == foreign_inputs("datasets", "birds", plan, paths)
    assert foreign_inputs("datasets", "birds", plan, paths)


def test_a_folder_of_images_is_left_at_the_first_image(tmp_path, monkeypatch) -> None:
    """Looking for archives on every call must not walk a million files."""
    as_folder(tmp_path / "set")
    seen: list[str] = []
    monkeypatch.setattr(os, "walk", lambda top: (seen.append(place[0]) or place for place in WALK(top)))
    assert foreign_inputs("datasets", "set", image_sets.plan(set={"reader": "images", "folder": "set"}), Paths(tmp_path)) == []
    assert len(seen) == 2  # set, and one of its three folders


def test_what_is_missing_is_left_to_the_reader(tmp_path) -> None:
    for reader in ("waterbirds", "celeba", "folder", "parquet", "images"):
        plan = image_sets.plan(set={"reader": reader, "folder": "nowhere"})
        assert foreign_inputs("datasets", "set", plan, Paths(tmp_path)) == []
