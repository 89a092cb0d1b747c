"""The reader `waterbirds`: the released table, wherever it lies, with its published counts."""

import shutil

import image_sets
import pytest
from image_sets import BIRD_COLUMNS as COLUMNS
from image_sets import published_table

from anchored.errors import InputError
from anchored.readers.folder import read_waterbirds


def test_it_becomes_a_store_with_words_for_groups(tmp_path, packed) -> None:
    """Image and label of a line must stay together: a shifted table would still train."""
    image_sets.waterbirds(tmp_path / "birds")
    store = packed(reader="waterbirds", folder="birds", published=False)
    for number, split in enumerate(("train", "val", "test")):
        rows = store.rows(split, 0)
        lines = range(4 * number, 4 * number + 4)
        assert [round(int(red) / 10) for red in store.packed[rows, 4, 4, 0]] == list(lines)
        assert store.column("group", rows).tolist() == [2 * image_sets.LABELS[line] + image_sets.PLACES[line] for line in lines]
    assert store.manifest["group_names"] == {
        "0": "landbird on land", "1": "landbird on water", "2": "waterbird on land", "3": "waterbird on water",
    }  # fmt: skip
    assert store.manifest["groups"]["train"] == {"0": 1, "1": 1, "2": 1, "3": 1}


@pytest.mark.parametrize("name", ["waterbird_complete95_forest2water2", "waterbirds_v1.0", "unpacked"])
def test_the_folder_above_is_as_good(tmp_path, name) -> None:
    """People point at where they unpacked; the WILDS folder holds the same table."""
    image_sets.waterbirds(tmp_path / "data" / name)
    entry = image_sets.entry(reader="waterbirds", folder="data", published=False)
    assert read_waterbirds(entry, tmp_path).images.where == tmp_path / "data" / name


def test_of_several_folders_one_has_to_be_named(tmp_path, refused) -> None:
    for name in ("one", "two"):
        image_sets.waterbirds(tmp_path / "data" / name)
    error = refused(reader="waterbirds", folder="data", published=False)
    assert "data holds 2 folders with a metadata.csv: one, two." in error.message
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data" / "empty").mkdir(parents=True)
    error = refused(reader="waterbirds", folder="data")
    assert "holds no metadata.csv, nor does a folder in it" in error.message
    assert "waterbirds_v1.0" in error.hint
    error = refused(reader="waterbirds", folder="nowhere")
    assert error.message.endswith("nowhere is missing.")


def test_the_published_counts_are_accepted_and_named(tmp_path) -> None:
    published_table(tmp_path / "birds")
    reading = read_waterbirds(image_sets.entry(reader="waterbirds", folder="birds"), tmp_path)
    assert len(reading.columns) == 4795 + 1199 + 5794
    assert reading.facts["source"] == {"name": "Waterbirds (group counts as published), folder birds, as given"}


def test_other_counts_show_both_histograms(tmp_path) -> None:
    """A table in a wrong row order trains without an error; its histogram gives it away."""
    published_table(tmp_path / "birds", swap=3)
    with pytest.raises(InputError) as caught:
        read_waterbirds(image_sets.entry(reader="waterbirds", folder="birds"), tmp_path)
    assert caught.value.message == (
        "group counts (2 y + a) are not those of Waterbirds: train 3495/187/56/1057, published 3498/184/56/1057 (WILDS's code)."
    )
    assert "`published: false`" in caught.value.hint
    reading = read_waterbirds(image_sets.entry(reader="waterbirds", folder="birds", published=False), tmp_path)
    assert reading.facts["source"] == {"name": "folder birds, as given"}


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("y", "2", "1 lines have a label other than 0 (landbird) and 1 (waterbird) in column y: line 4 (002.Species/2.jpg)."),
        ("place", "", "1 lines have a label other than 0 (land) and 1 (water) in column place: line 4"),
        ("split", "3", "1 lines have a split other than train, val, test (0, 1, 2): line 4 (002.Species/2.jpg)."),
        ("img_filename", "001.Species/1.jpg", "2 lines have an image named twice: line 3 (001.Species/1.jpg), line 4"),
        ("img_filename", "./001.Species/1.jpg", "2 lines have an image named twice: line 3 (001.Species/1.jpg), line 4"),
        ("img_filename", "../secret.png", "1 lines have a path that leaves the folder, or none: line 4 (../secret.png)."),
        ("img_filename", "/etc/passwd", "1 lines have a path that leaves the folder, or none"),
        ("img_filename", "", "1 lines have a path that leaves the folder, or none: line 4."),
        ("img_filename", "002.Species/none.jpg", "1 of 12 images are missing or cannot be read: 002.Species/none.jpg."),
    ],
)
def test_a_bad_line_is_named(tmp_path, refused, column, value, sentence) -> None:
    path = image_sets.waterbirds(tmp_path / "birds") / "metadata.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[3][COLUMNS.index(column)] = value
    path.write_text("\n".join(map(",".join, lines)) + "\n")
    assert sentence in refused(reader="waterbirds", folder="birds", published=False).message


def test_another_table_is_told_by_its_columns(tmp_path, refused) -> None:
    image_sets.own(tmp_path / "birds", "ab" * 6, "xxyy" * 3, image_sets.SPLITS)
    error = refused(reader="waterbirds", folder="birds")
    assert "lacks the column 'img_filename' (image" in error.message
    assert "it has filename, label, background, split." in error.message
