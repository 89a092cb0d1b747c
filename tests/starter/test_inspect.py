"""`inspect` guesses the format of a folder as a person would, and says what may spoil a comparison."""

import tarfile

import image_sets
import polars as pl
import pytest

from anchored.errors import InputError
from anchored.starter.inspect import inspect


def own(folder, **keys):
    labels = [("ibis", "jay")[y] for y in image_sets.LABELS]
    return image_sets.own(folder, labels, [("lake", "wood")[a] for a in image_sets.PLACES], image_sets.SPLITS)


def test_a_folder_of_ones_own(tmp_path) -> None:
    found = inspect(own(tmp_path / "birds"))
    assert found.entry == {"reader": "folder", "folder": str(tmp_path / "birds")}
    assert found.splits == {"train": 4, "val": 4, "test": 4}
    assert (found.classes, found.attributes) == (("ibis", "jay"), ("lake", "wood"))
    assert found.histogram["test"] == {0: 1, 1: 1, 2: 1, 3: 1}
    assert found.lines[0] == "train 4 images (ibis, lake: 1; ibis, wood: 1; jay, lake: 1; jay, wood: 1)"
    assert found.sizes == [(20, 16)] * 12
    assert found.source == "folder birds, as given"
    assert [problem.split(":")[0] for problem in found.problems] == ["train", "val", "test"]
    assert found.problems[2] == (
        "test: 4 groups have fewer than 10 images: ibis, lake (1), ibis, wood (1), jay, lake (1), jay, wood (1); what is measured "
        "on so few is chance."
    )


def test_the_folder_above_is_as_good(tmp_path) -> None:
    own(tmp_path / "data" / "birds")
    assert inspect(tmp_path / "data").entry["folder"] == str(tmp_path / "data" / "birds")


def test_a_table_without_an_attribute_is_told(tmp_path) -> None:
    table = own(tmp_path / "birds") / "metadata.csv"
    table.write_text(table.read_text().replace("background", "remark"))
    found = inspect(tmp_path / "birds")
    assert found.entry["attribute"] == "-"
    assert found.attributes == ("",)
    assert "no column looks like an attribute (filename, label, remark, split)" in found.problems[0]


def test_waterbirds_is_known_by_its_counts(tmp_path) -> None:
    """Others use its columns for other birds, or no birds at all: words like landbird would be wrong there."""
    assert inspect(image_sets.waterbirds(tmp_path / "like")).entry["reader"] == "folder"
    folder = image_sets.published_table(tmp_path / "birds")
    (folder / "0.jpg").write_bytes(image_sets.picture(0, "JPEG"))
    found = inspect(folder)
    assert found.entry == {"reader": "waterbirds", "folder": str(folder)}
    assert found.histogram["train"][2] == 56
    assert any("31 of 32 images of a sample cannot be opened" in problem for problem in found.problems)


@pytest.mark.parametrize(("flavour", "images"), [("txt", "folder"), ("csv", "zip"), ("csv", "whole")])
def test_celeba_in_every_layout(tmp_path, flavour, images) -> None:
    place = image_sets.celeba(tmp_path / "faces", flavour, images)
    found = inspect(place)
    assert found.entry == {"reader": "celeba", "folder": str(place), "published": False}
    assert found.classes == ("not Blond_Hair", "Blond_Hair")
    assert found.sizes == [(178, 218)] * 12
    assert any("the format is that of CelebA, the group counts are not" in problem for problem in found.problems)


def test_parquet_files(tmp_path) -> None:
    folder = image_sets.mirror(tmp_path / "birds")
    assert inspect(folder).entry == {"reader": "parquet", "folder": str(folder)}
    for file in folder.iterdir():
        pl.read_parquet(file).drop("place").write_parquet(file)
    assert inspect(folder).entry["attribute"] == "-"


def test_groups_without_test_images_are_told(tmp_path) -> None:
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    image_sets.own(tmp_path / "set", ["a", "b", "c"] * 4, ["x"] * 12, splits)
    assert not [problem for problem in inspect(tmp_path / "set").problems if "no images of" in problem]
    image_sets.own(tmp_path / "set", ["a", "b", "c"] * 3 + ["a", "b", "b"], ["x"] * 12, splits)
    assert "test has no images of c, x: no accuracy there." in inspect(tmp_path / "set").problems


def test_what_is_no_labelled_dataset_is_named(tmp_path) -> None:
    def refusal(path):
        with pytest.raises(InputError) as caught:
            inspect(path)
        return caught.value

    assert refusal(tmp_path / "nowhere").message.endswith("nowhere is missing.")
    folder = own(tmp_path / "birds")
    (folder / "metadata.csv").unlink()
    error = refusal(folder)
    assert "birds holds 12 images and no table: no labelled dataset" in error.message
    assert "write a metadata.csv with a line an image" in error.hint
    with tarfile.open(tmp_path / "bank.tar", "w"):
        pass
    assert "is a .tar file: no labelled dataset" in refusal(tmp_path / "bank.tar").message
    faces = image_sets.celeba(tmp_path / "faces")
    (faces / "list_eval_partition.csv").unlink()
    assert "faces lacks list_eval_partition.csv (or .txt)" in refusal(faces).message
