"""The reader `parquet`: mirrors as the Hugging Face hub holds them."""

import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import image_sets
import polars as pl
import pytest
from image_sets import MIRROR as NAMES
from image_sets import mirror

from anchored.readers.parquet import read_parquet
from anchored.readers.parquet_images import ParquetImages, Row

LAYOUTS = {
    "files": {},
    "plain bytes": {"struct": False},
    "folders of the converted branch": {"files": ("train/0000.parquet", "validation/0000.parquet", "test/0000.parquet")},
    "one file with a column": {"files": ("all.parquet",), "split": True},
    "shards with a column": {"files": ("data/part-0.parquet", "data/part-1.parquet"), "split": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mirror_becomes_a_store(tmp_path, packed, layout) -> None:
    """Image and labels of a row must stay together over files and row groups."""
    mirror(tmp_path / "birds", **LAYOUTS[layout])
    store = packed(reader="parquet", folder="birds")
    by_line = sorted(zip(store.packed[:, 4, 4, 0].tolist(), store.index["split"], store.index["group"], strict=True))
    expected = [
        (10 * line, ("train", "val", "test")[image_sets.SPLITS[line]], 2 * image_sets.LABELS[line] + image_sets.PLACES[line])
        for line in range(12)
    ]
    assert by_line == expected
    assert store.manifest["group_names"]["1"] == "label=0, place=1"
    assert store.index["path"].str.contains(r"\.parquet#\d+$").all()
    assert len(set(store.index["sha256"])) == 12


def test_a_single_file_is_named_without_its_folder(tmp_path, packed) -> None:
    mirror(tmp_path / "birds", files=("all.parquet",), split=True)
    store = packed(reader="parquet", folder="birds/all.parquet")
    assert store.index["path"].to_list() == [f"all.parquet#{row}" for row in range(12)]
    assert store.manifest["source"] == {"name": "file all.parquet, as given"}


def test_names_that_the_hub_keeps_are_used(tmp_path) -> None:
    """The hub numbers classes and keeps their names beside the columns; numbers alone say nothing in a table."""
    mirror(tmp_path / "birds", hub=True)
    found = read_parquet(image_sets.entry(reader="parquet", folder="birds"), tmp_path)
    assert found.facts["group_names"] == {
        "0": "landbird, place=0", "1": "landbird, place=1", "2": "waterbird, place=0", "3": "waterbird, place=1",
    }  # fmt: skip
    found = read_parquet(image_sets.entry(reader="parquet", folder="birds", classes=["a", "b"]), tmp_path)
    assert found.facts["group_names"]["0"] == "a, place=0"


def test_a_mirror_of_celeba_is_read_like_it(tmp_path) -> None:
    """Attributes as true and false, and the convention's cut of faces: without `faces` it would be another dataset."""
    folder = mirror(tmp_path / "faces")
    for file in folder.iterdir():
        truths = [(pl.col("label") == 1).alias("Blond_Hair"), (pl.col("place") == 1).alias("Male")]
        change(file, *truths, drop=["label", "place"])
    entry = image_sets.entry(
        reader="parquet", folder="faces", label="Blond_Hair", attribute="Male", faces=True, convention="group-dro", size=224
    )
    assert entry["transform"] == image_sets.entry(reader="celeba", folder="faces", size=224)["transform"]
    found = read_parquet(entry, tmp_path)
    assert found.facts["group_names"]["1"] == "Blond_Hair=false, Male=true"
    assert sorted(zip(found.columns["split"], found.columns["group"], strict=True)) == sorted(
        (split, group) for split in ("train", "val", "test") for group in range(4)
    )


def change(path: Path, *expressions: pl.Expr, drop: Sequence[str] = ()) -> None:
    pl.read_parquet(path).with_columns(*expressions).drop(drop).write_parquet(path)


def test_a_folder_may_be_called_like_a_file(tmp_path) -> None:
    """Programs that write a table in parts name the folder as the table."""
    image_sets.mirror(tmp_path / "set.parquet")
    found = read_parquet(image_sets.entry(reader="parquet", folder="set.parquet"), tmp_path)
    assert sorted(found.columns["split"]) == ["test"] * 4 + ["train"] * 4 + ["val"] * 4


def test_one_column_for_two_roles_makes_groups_of_classes(tmp_path) -> None:
    image_sets.mirror(tmp_path / "set")
    found = read_parquet(image_sets.entry(reader="parquet", folder="set", attribute="label"), tmp_path)
    assert found.columns["a"].to_list() == found.columns["y"].to_list() == image_sets.LABELS


def test_bad_rows_and_columns_are_named(tmp_path, refused) -> None:
    folder = mirror(tmp_path / "birds")
    test, last = folder / NAMES[2], folder / NAMES[1]
    good = test.read_bytes()

    def message(*expressions: pl.Expr, drop: Sequence[str] = (), **keys: Any) -> str:
        test.write_bytes(good)
        change(test, *expressions, drop=drop)
        return refused(reader="parquet", folder="birds", **keys).message

    nobody = pl.when(pl.int_range(pl.len()) == 2).then(None).otherwise(pl.col("label")).alias("label")
    assert "1 rows have no class (column label): row 2 (test-00000-of-00001.parquet#2)." in message(nobody)
    last_good = last.read_bytes()
    change(last, drop=["place"])
    assert "validation-00000-of-00001.parquet lacks the columns place, which other files have." in message()
    last.write_bytes(last_good)
    assert "columns hold no labels: label (List(Int64))" in message(pl.concat_list("label"))
    empty = pl.struct(pl.lit(None, pl.Binary).alias("bytes"), pl.lit("x.png").alias("path")).alias("image")
    assert "4 of 12 images are missing or cannot be read: test-00000-of-00001.parquet#0, " in message(empty)
    assert "lacks the column 'places' (attribute; did you mean 'place'?)" in message(attribute="places")
    test.write_bytes(good)
    for file in NAMES:
        change(folder / file, pl.lit(b"x").alias("thumbnail"))
    assert "2 columns hold bytes: image, thumbnail." in refused(reader="parquet", folder="birds").message
    assert "column 'label' holds no encoded images" in refused(reader="parquet", folder="birds", image="label").message


def test_bad_files_are_named(tmp_path, refused) -> None:
    folder = mirror(tmp_path / "birds")
    path = folder / NAMES[2]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    error = refused(reader="parquet", folder="birds")
    assert "test-00000-of-00001.parquet is no readable parquet file" in error.message
    path.rename(folder / "rest.parquet")
    (folder / "rest.parquet").write_bytes(data)
    error = refused(reader="parquet", folder="birds")
    assert "rest.parquet: neither a column nor its name tells the split." in error.message
    (folder / "rest.parquet").unlink()
    assert "birds has no images of split test (train 4, val 4, test 0)." in refused(reader="parquet", folder="birds").message
    for file in folder.iterdir():
        file.unlink()
    assert "holds no .parquet file" in refused(reader="parquet", folder="birds").message
    assert "nowhere is missing" in refused(reader="parquet", folder="nowhere").message


def large(folder: Path, rows: int, size: int, group: int) -> Path:
    """A file of `rows` cells of `size` bytes that say their number, in row groups of `group`."""
    cells = [number.to_bytes(4, "big") * (size // 4) for number in range(rows)]
    pl.DataFrame({"image": cells}).write_parquet(folder / "large.parquet", row_group_size=group, compression="uncompressed")
    return folder / "large.parquet"


def test_threads_read_what_one_reads(tmp_path) -> None:
    """Decoding asks from several threads at once, and blocks are shared between them."""
    path = large(tmp_path, 1000, 40, 150)
    images = ParquetImages(path, "image", [Row(path, number) for number in range(1000)])
    order = [(7919 * number) % 1000 for number in range(1000)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(images.read, order))
    assert [int.from_bytes(cell[:4], "big") for cell in found] == order


def test_a_few_rows_are_held_at_a_time(tmp_path) -> None:
    """A shard of ImageNet has 500 MB; what Python holds of it is a few blocks. (What polars holds is a row group.)"""
    path = large(tmp_path, 2000, 10_000, 100)
    images = ParquetImages(path, "image", [Row(path, number) for number in range(2000)])
    tracemalloc.start()
    for number in range(2000):
        assert images.read(number)[:4] == number.to_bytes(4, "big")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 3
