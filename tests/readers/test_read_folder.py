"""The reader `folder`: a table and labels of one's own."""

import os
import re
from pathlib import Path

import image_sets
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchored.readers import tables
from anchored.readers.folder import read_folder
from anchored.readers.reading import histogram_lines

CLASSES, PLACES = [("ibis", "jay")[y] for y in image_sets.LABELS], [("lake", "wood")[a] for a in image_sets.PLACES]
SPLITS = [("train", "valid", "Test")[split] for split in image_sets.SPLITS]


def read(root: Path, **keys):
    return read_folder(image_sets.entry(reader="folder", folder="set", **keys), root)


def test_words_for_labels_become_a_store(tmp_path, packed) -> None:
    """Image and labels of a line must stay together, and the manifest must say what the numbers mean."""
    image_sets.own(tmp_path / "set", CLASSES, PLACES, SPLITS)
    store = packed(reader="folder", folder="set")
    assert store.packed[:, 4, 4, 0].tolist() == [10 * line for line in range(12)]
    assert store.index["y"].to_list() == image_sets.LABELS
    assert store.index["a"].to_list() == image_sets.PLACES
    assert store.index["path"].to_list() == [f"images/{line}.png" for line in range(12)]
    assert store.manifest["classes"] == {"0": "ibis", "1": "jay"}
    assert store.manifest["attributes"] == {"0": "lake", "1": "wood"}
    assert store.manifest["group_names"] == {"0": "ibis, lake", "1": "ibis, wood", "2": "jay, lake", "3": "jay, wood"}
    assert store.manifest["source"] == {"name": "folder set, as given"}
    assert store.manifest["preprocessing"] == {"convention": "short-side", "steps": "shorter side 8 bicubic, centre 8"}


def test_the_digest_of_every_file_is_in_the_index(tmp_path, packed) -> None:
    """`prepare --check` compares by it, and a table can be traced to its images."""
    import hashlib

    image_sets.own(tmp_path / "set", CLASSES, PLACES, SPLITS)
    store = packed(reader="folder", folder="set")
    for path, digest in store.index.select("path", "sha256").iter_rows():
        assert digest == hashlib.sha256((tmp_path / "set" / path).read_bytes()).hexdigest()


def test_names_of_labels_can_be_given(tmp_path, refused) -> None:
    image_sets.own(tmp_path / "set", image_sets.LABELS, image_sets.PLACES, SPLITS)
    assert read(tmp_path).facts["group_names"]["1"] == "label=0, background=1"
    named = read(tmp_path, classes=["ibis", "jay"], attributes=["lake", "wood"])
    assert named.facts["group_names"]["1"] == "ibis, wood"
    error = refused(reader="folder", folder="set", classes=["ibis"])
    assert "has 2 values in column label (0, 1), `classes` has 1 names." in error.message


@pytest.mark.parametrize("labels", [("1.5", "1.50"), ("12345678901234567", "12345678901234568")])
def test_numbers_of_one_value_have_one_order(labels) -> None:
    """They are two classes; which of them is 0 must not follow from the order of the lines, nor change from run to run."""
    for lines in (labels, labels[::-1]):
        frame = pl.DataFrame({tables.LINE: [2, 3], "filename": ["a", "b"], "label": lines})
        numbers, found = tables.number_labels(tables.Table(Path("t.csv"), frame, "filename"), "label", "class")
        assert found == list(labels)
        assert numbers.to_list() == [labels.index(label) for label in lines]


def test_no_attribute_makes_groups_of_classes(tmp_path, refused) -> None:
    folder = image_sets.own(tmp_path / "set", CLASSES, PLACES, SPLITS)
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace("background", "remark"))
    error = refused(reader="folder", folder="set")
    assert "lacks a column for the attribute (a, place, attribute, background" in error.message
    assert 'set `attribute: "-"` where there is none' in error.hint
    found = read(tmp_path, attribute="-")
    assert found.columns["group"].to_list() == image_sets.LABELS
    assert found.facts["group_names"] == {"0": "ibis", "1": "jay"}
    error = refused(reader="folder", folder="set", attribute="remarc")
    assert "lacks the column 'remarc' (attribute; did you mean 'remark'?)" in error.message


def test_a_misspelt_label_is_a_group_that_train_lacks(tmp_path, refused) -> None:
    """Any text may be a label, so a slip makes a new class; nobody could learn it."""
    image_sets.own(tmp_path / "set", [*CLASSES[:-1], "jya"], PLACES, SPLITS)
    error = refused(reader="folder", folder="set")
    assert "train has no images of 1 of the 5 groups: jya, wood (test 1)." in error.message
    assert "`unseen_groups: true`" in error.hint
    assert read(tmp_path, unseen_groups=True).facts["classes"]["2"] == "jya"


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("split", "training set", "1 lines have a split other than train, val, test (0, 1, 2): line 4 (images/2.png)"),
        ("split", "", "1 lines have a split other than train, val, test"),
        ("label", " ", "1 lines have no class (column label): line 4 (images/2.png)"),
        ("background", "nan", "1 lines have no attribute (column background): line 4 (images/2.png)"),
        ("filename", "images/1.png", "2 lines have an image named twice: line 3 (images/1.png), line 4 (images/1.png)"),
        ("filename", "images/../../secret", "1 lines have a path that leaves the folder, or none: line 4"),
        ("filename", "images\\2.png", "1 lines have a path that leaves the folder, or none: line 4"),
        ("filename", "images", "1 of 12 images are missing or cannot be read: images."),
        ("filename", "x" * 300, "1 of 12 images are missing or cannot be read: xxx"),
    ],
)
def test_a_bad_line_is_named(tmp_path, refused, column, value, sentence) -> None:
    table = image_sets.own(tmp_path / "set", CLASSES, PLACES, SPLITS) / "metadata.csv"
    lines = [line.split(",") for line in table.read_text().splitlines()]
    lines[3][lines[0].index(column)] = value
    table.write_text("\n".join(map(",".join, lines)))
    assert sentence in refused(reader="folder", folder="set").message


def test_a_link_cannot_lead_out_of_the_folder(tmp_path, refused, packed) -> None:
    """A dataset from somewhere else must not name the files of whoever reads it. Links inside are as good as files."""
    folder = image_sets.own(tmp_path / "set", CLASSES, PLACES, SPLITS)
    (tmp_path / "secret.png").write_bytes(image_sets.picture(2))
    target = folder / "images" / "2.png"
    target.unlink()
    target.symlink_to(tmp_path / "secret.png")
    message = refused(reader="folder", folder="set").message
    assert "1 lines have a path that leaves the folder through a link: line 4 (images/2.png)" in message
    (folder / "images").rename(tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    assert "12 lines have a path that leaves the folder through a link" in refused(reader="folder", folder="set").message
    (folder / "images").unlink()
    (tmp_path / "elsewhere").rename(folder / "pictures")
    (folder / "images").symlink_to("pictures")
    target = folder / "pictures" / "2.png"
    target.unlink()
    target.symlink_to("1.png")
    os.rename(folder, tmp_path / "moved")
    (tmp_path / "set").symlink_to("moved")
    assert packed(reader="folder", folder="set").packed[2, 0, 0, 0] == 10


def test_a_corrupt_image_is_named_and_nothing_is_written(tmp_path, refused) -> None:
    folder = image_sets.own(tmp_path / "set", CLASSES, PLACES, SPLITS)
    (folder / "images" / "4.png").write_bytes(b"\x89PNG no image")
    message = refused(reader="folder", folder="set").message
    assert "1 images are missing or cannot be read: images/4.png" in message


def test_a_refused_table_leaves_the_store_as_it_was(tmp_path, packed) -> None:
    """Half a new store over an old one would be neither."""
    from anchored.errors import InputError

    folder = image_sets.own(tmp_path / "set", CLASSES, PLACES, SPLITS)
    packed(reader="folder", folder="set")
    store = tmp_path / "results" / "data" / "set"
    before = {file.name: file.read_bytes() for file in store.iterdir() if file.name != "record.json"}
    for damage in (b"no image", None):
        (folder / "images" / "11.png").write_bytes(damage) if damage else (folder / "images" / "11.png").unlink()
        (folder / "metadata.csv").write_text((folder / "metadata.csv").read_text() + "\n")  # noticed: the table is watched
        with pytest.raises(InputError):
            packed(reader="folder", folder="set")
        assert {file.name: file.read_bytes() for file in store.iterdir() if file.name != "record.json"} == before


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("filename,label,background,split\ncaf\xe9.png,0,0,0\n".encode("latin-1"), "is not UTF-8 text: byte 0xe9 in line 2."),
        ("filename,label,background,split\na.png,0,0,0\n".encode("utf-16"), "is not UTF-8 text: byte 0xff in line 1."),
        ("filename,label,background,split\na.png,0,0,0\n".encode("utf-16-le"), "is not UTF-8 text: it holds zero bytes"),
        (b"", "is no readable CSV"),
        (b"filename,label,background,split\n", "has no lines"),
        (b"filename,label,label,split\na.png,0,0,0\n", "has the column 'label' twice"),
        (b"filename,label,background,split\na.png,0,0,0,9,9\n", "is no readable CSV"),
        (b"filename;label;background;split\na.png;0;0;0\n", "it has filename;label;background;split."),
        (b"filename,label,background,split\na.png,0,0,0\n", "has no images of split val, test (train 1, val 0, test 0)."),
    ],
)
def test_what_is_no_table_is_named(tmp_path, refused, data, sentence) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "metadata.csv").write_bytes(data)
    assert sentence in refused(reader="folder", folder="set").message


def test_a_table_of_a_spreadsheet_is_read(tmp_path) -> None:
    """Excel writes a byte order mark, pandas writes 0.0, people write spaces."""
    folder = image_sets.own(tmp_path / "set", [f" {y}.0" for y in image_sets.LABELS], PLACES, [f"{s}.0" for s in image_sets.SPLITS])
    table = folder / "metadata.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"filename,label", b"filename, Label "))
    found = read(tmp_path)
    assert found.facts["classes"] == {"0": "0", "1": "1"}
    assert found.columns["split"].value_counts().sort("split")["count"].to_list() == [4, 4, 4]


def test_copies_between_splits_are_told(tmp_path, packed, caplog) -> None:
    """An image of the test split that is also trained on makes every accuracy a little too good."""
    folder = image_sets.own(tmp_path / "set", CLASSES, PLACES, SPLITS)
    (folder / "images" / "9.png").write_bytes((folder / "images" / "0.png").read_bytes())
    import logging

    logging.getLogger("anchored").propagate = True
    with caplog.at_level("INFO", logger="anchored"):
        packed(reader="folder", folder="set")
    assert "1 images of val or test are byte for byte in train, too: images/9.png" in caplog.text
    assert "train 4 images (ibis, lake: 1; ibis, wood: 1; jay, lake: 1; jay, wood: 1)" in caplog.text


def test_a_table_without_a_folder_is_named(tmp_path, refused) -> None:
    image_sets.own(tmp_path / "set" / "birds", CLASSES, PLACES, SPLITS)
    error = refused(reader="folder", folder="set")
    assert error.message.endswith("set/metadata.csv is missing.")
    assert error.hint == f"set `folder` to {tmp_path / 'set' / 'birds'}, which has one."
    assert "is a file, a folder is needed" in refused(reader="folder", folder="set/birds/metadata.csv").message


def test_many_groups_are_shown_from_the_smallest() -> None:
    columns = pl.DataFrame({"split": ["train"] * 210, "group": [g for g in range(20) for _ in range(g + 1)]})
    (line,) = histogram_lines(columns, {str(g): f"g{g}" for g in range(20)})
    assert line.startswith("train 210 images (g0: 1; g1: 2; ")
    assert line.endswith("g15: 16, and 4 larger groups)")


# Numbers are written in one way here: 00 and 0 are one label, which has a test of its own.
WORD = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1, max_size=6).filter(
    lambda text: text.strip() not in ("", "nan", "NaN") and not re.fullmatch(r"[+-]?\d+(\.0*)?", text.strip(), re.ASCII)
)
LABEL = st.one_of(st.integers(-20, 200).map(str), WORD)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.lists(LABEL, min_size=1, max_size=5, unique_by=str.strip),
    attributes=st.lists(LABEL, min_size=1, max_size=4, unique_by=str.strip),
    data=st.data(),
)
def test_any_labels_survive_the_way_into_the_index(tmp_path, classes, attributes, data) -> None:
    """Oracle: numbers back to labels through the manifest give the table again, in any order of the lines."""
    pairs = [(y, a) for y in classes for a in attributes]
    rows = [(split, *pair) for split in ("train", "dev", "2") for pair in pairs]
    rows = data.draw(st.permutations(rows))
    table = [(f"{line}.png", y, a, split) for line, (split, y, a) in enumerate(rows)]
    image_sets.write_table(tmp_path / "set" / "metadata.csv", ("image", "y", "place", "split"), table)
    found = read(tmp_path)
    names, columns = found.facts, found.columns
    back = [(names["classes"][str(y)], names["attributes"][str(a)]) for y, a in columns.select("y", "a").iter_rows()]
    assert back == [(y.strip(), a.strip()) for _, y, a in rows]
    assert columns["split"].to_list() == [{"train": "train", "dev": "val", "2": "test"}[split] for split, _, _ in rows]
    count = len(names["attributes"])
    assert columns["group"].to_list() == [count * y + a for y, a in columns.select("y", "a").iter_rows()]
    numbers = [float(label) for label in names["classes"].values() if label.lstrip("-").isdecimal() and label.isascii()]
    assert numbers == sorted(numbers)


def test_a_long_table_does_not_ask_the_disk_for_every_path(tmp_path) -> None:
    """CelebA's size: the check of every path must not ask the disk for all its parents. Counted, not timed."""
    count = 3000
    rows = [(f"images/{line}.png", line % 2, line // 2 % 2, line % 3) for line in range(count)]
    image_sets.write_table(tmp_path / "set" / "metadata.csv", ("image", "y", "place", "split"), rows)
    asked = []
    real = os.path.realpath
    try:
        os.path.realpath = lambda path, **options: (asked.append(path), real(path, **options))[1]  # type: ignore[assignment]
        assert len(read(tmp_path).columns) == count
    finally:
        os.path.realpath = real
    assert len(asked) < 10
