"""Folders SPLIT/CLASS in place of a table: the layout that image-folder datasets have."""

from pathlib import Path

import image_sets
import pytest

from anchored.errors import InputError
from anchored.readers.class_folders import class_folders, images_by_folder
from anchored.starter.inspect import inspect

PATHS = [f"{split}/{bird}/{number}.png" for split in ("Train", "test", "valid") for bird in ("ibis", "jay") for number in (0, 1)]


def write(folder: Path, paths: list[str]) -> Path:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(image_sets.picture(number))
    return folder


def test_names_of_folders_become_labels(tmp_path, packed) -> None:
    """Each image must keep the class and the split of the folder that it lies in."""
    write(tmp_path / "set", PATHS)
    store = packed(reader="folder", folder="set", attribute="-")
    assert store.index["path"].to_list() == PATHS
    assert store.index["split"].to_list() == ["train"] * 4 + ["test"] * 4 + ["val"] * 4
    assert store.index["y"].to_list() == [0, 0, 1, 1] * 3
    assert store.manifest["group_names"] == {"0": "ibis", "1": "jay"}
    assert store.packed[:, 4, 4, 0].tolist() == [10 * number for number in range(12)]


def test_what_is_no_image_of_a_class_is_left_out(tmp_path) -> None:
    more = ["train.png", "Train/loose.png", "train/.hidden/3.png", "Train/jay/.4.png", "Train/jay/.old/5.png", "extra/jay/6.png"]
    folder = write(tmp_path / "set", [*PATHS, *more])
    (folder / "Train" / "jay" / "notes.txt").write_text("seen at the lake")
    table = class_folders(folder)
    assert table is not None
    assert table["img_filename"].to_list() == PATHS


def test_images_below_a_class_are_of_that_class(tmp_path) -> None:
    table = class_folders(write(tmp_path / "set", ["train/jay/flock/young/1.png"]))
    assert table is not None
    assert table.row(0, named=True) == {"#line": 1, "img_filename": "train/jay/flock/young/1.png", "y": "jay", "split": "train"}


def test_a_table_has_precedence(tmp_path, packed) -> None:
    """Whoever writes a table into such a folder wants its groups."""
    folder = write(tmp_path / "set", PATHS)
    rows = [(path, path.split("/")[1], number % 2, path.split("/")[0]) for number, path in enumerate(PATHS)]
    image_sets.write_table(folder / "metadata.csv", ("img_filename", "y", "place", "split"), rows)
    assert packed(reader="folder", folder="set").index["a"].to_list() == [0, 1] * 6


def test_gaps_are_refused_in_words_of_folders(tmp_path, refused) -> None:
    folder = write(tmp_path / "set", [path for path in PATHS if not path.startswith("valid")])
    assert "has no images of split val" in refused(reader="folder", folder="set", attribute="-").message
    write(folder, ["valid/owl/1.png", "valid/jay/1.png"])
    assert "train" in refused(reader="folder", folder="set", attribute="-").message
    assert "a column for the attribute" in refused(reader="folder", folder="set").message
    write(tmp_path / "birds", ["jay/1.png"])
    assert refused(reader="folder", folder="birds").message.endswith("metadata.csv is missing.")


def test_init_finds_them_and_says_what_the_groups_are(tmp_path) -> None:
    found = inspect(write(tmp_path / "set", PATHS))
    assert found.entry == {"reader": "folder", "folder": str(tmp_path / "set"), "attribute": "-"}
    assert found.splits == {"train": 4, "val": 4, "test": 4}
    assert "groups are the classes" in found.problems[0]


def test_classes_without_splits_are_told_what_to_write(tmp_path) -> None:
    """The commonest layout of all lacks splits, which nobody may invent: the error shows the table with the user's own names."""
    folder = write(tmp_path / "set", ["jay/1.png", "jay/2.png", "ibis/3.png"])
    assert images_by_folder(folder) == {"jay": 2, "ibis": 1}
    with pytest.raises(InputError) as caught:
        inspect(folder)
    assert "set holds 3 images and no table" in caught.value.message
    assert "(ibis, jay) may be the classes" in caught.value.hint
    assert "the folders train, val and test" in caught.value.hint
    assert caught.value.hint.endswith("\n    img_filename,y,place,split\n    ibis/3.png,ibis,PLACE,train")
