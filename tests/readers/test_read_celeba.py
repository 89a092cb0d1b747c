"""The reader `celeba` on AvatarAttrs: drawn faces in CelebA's formats. They exercise the reader and say nothing of faces."""

import io
import shutil
import zipfile
from pathlib import Path

import image_sets
import numpy as np
import polars as pl
import pytest
from PIL import Image

from anchored.errors import ConfigError, InputError
from anchored.plan.preprocessing import transform
from anchored.plan.read import read_config
from anchored.readers import celeba, published, reading
from anchored.readers.preprocess import preprocess

LAYOUTS = [("csv", "folder"), ("csv", "nested"), ("txt", "folder"), ("txt", "zip"), ("csv", "zip"), ("csv", "whole")]


@pytest.mark.parametrize(("flavour", "images"), LAYOUTS)
def test_every_layout_gives_the_same_store(tmp_path, packed, flavour, images) -> None:
    """Lists are joined by the image's name: the fixture's list of splits runs backwards."""
    place = image_sets.celeba(tmp_path / "faces", flavour, images).relative_to(tmp_path).as_posix()
    store = packed(reader="celeba", folder=place, size=32, published=False)
    assert store.manifest["groups"] == {split: dict.fromkeys("0123", 1) for split in ("train", "val", "test")}
    assert store.manifest["group_names"]["1"] == "not Blond_Hair, Male"
    for line, (name, attributes) in enumerate(image_sets.faces().items()):
        row = store.index.row(line, named=True)
        assert row["path"] == name
        assert row["split"] == ("train", "val", "test")[image_sets.SPLITS[line]]
        assert (row["y"], row["a"]) == (int(attributes["Blond_Hair"] == 1), int(attributes["Male"] == 1))
        with Image.open(io.BytesIO(image_sets.face(attributes, line))) as image:
            expected = preprocess(image.convert("RGB"), transform("group-dro", "faces", 32))
        assert np.array_equal(store.packed[line], expected)


def test_any_pair_of_attributes_can_be_chosen(tmp_path, packed, refused) -> None:
    image_sets.celeba(tmp_path / "faces")
    message = refused(reader="celeba", folder="faces", target="Male", attribute="Young", published=False).message
    assert "train has no images of 1 of the 4 groups: Male, not Young (test 1)." in message
    store = packed(reader="celeba", folder="faces", target="Male", attribute="Young", published=False, unseen_groups=True)
    expected = [(int(face["Male"] == 1), int(face["Young"] == 1)) for face in image_sets.faces().values()]
    assert list(store.index.select("y", "a").iter_rows()) == expected
    assert store.manifest["classes"] == {"0": "not Male", "1": "Male"}


def test_all_attributes_are_a_multi_label_target(tmp_path, packed) -> None:
    """There is no class, hence no column y and no group that could be taken for one."""
    image_sets.celeba(tmp_path / "faces")
    store = packed(reader="celeba", folder="faces", target="all", published=False)
    assert store.manifest["task"] == "multi-label"
    assert store.manifest["targets"] == [f"y_{name}" for name in image_sets.FACES]
    assert not {"y", "group"} & set(store.index.columns)
    for name in image_sets.FACES:
        expected = [int(face[name] == 1) for face in image_sets.faces().values()]
        assert store.index[f"y_{name}"].to_list() == expected
    assert store.index["a"].to_list() == store.index["y_Male"].to_list()
    assert store.manifest["groups"] == {}


CONFIG = """
name: faces
datasets:
  faces: {{reader: celeba, folder: faces, {keys}}}
  bank: {{reader: images, folder: bank}}
backbones:
  tiny: {{architecture: {{family: tiny-vit}}, pretraining: {{bank: bank, probe: faces}}}}
experiments:
  faces: {{dataset: faces, backbone: tiny, arms: {{erm: {{lr: [1.0e-3]}}}}}}
"""


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("target: all", "experiments.faces.dataset: 'faces' has 40 targets (target: all), training and probes need one class"),
        ("target: Blond", "target 'Blond' is none of CelebA's 40 attributes; did you mean 'Blond_Hair'?"),
        ("attribute: male", "attribute 'male' is none of CelebA's 40 attributes; did you mean 'Male'?"),
        ("attribute: all", "attribute 'all' is none of CelebA's 40 attributes"),
        ("target: Male", "target and attribute are both 'Male': groups need two"),
    ],
)
def test_a_target_that_cannot_be_is_refused_by_the_plan(tmp_path, keys, sentence) -> None:
    """Weeks later, at the end of a queue, would be too late."""
    path = tmp_path / "faces.yaml"
    path.write_text(CONFIG.format(keys=keys))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert sentence in caught.value.message


def test_faces_are_cut_as_faces() -> None:
    """Scenes and faces differ in group DRO's convention; a face cut as a scene is another dataset."""
    entry = image_sets.entry(reader="celeba", folder="faces", size=224)
    assert entry["transform"] == transform("group-dro", "faces", 224) != transform("group-dro", "scenes", 224)


def test_counts_are_checked_against_the_published_ones(tmp_path, refused, monkeypatch) -> None:
    """For other pairs only the sizes of the splits are known."""
    image_sets.celeba(tmp_path / "faces")
    message = refused(reader="celeba", folder="faces").message
    assert "train 1/1/1/1, published 71629/66874/22880/1387 (second-hand: five public repositories)" in message
    message = refused(reader="celeba", folder="faces", target="Young").message
    assert "numbers of images are not those of CelebA: train 4, published 162770" in message
    message = refused(reader="celeba", folder="faces", target="all").message
    assert "train 4, published 162770" in message
    ones = dict.fromkeys(("train", "val", "test"), published.Published((1, 1, 1, 1), "this test"))
    monkeypatch.setattr(published, "BLOND_MALE", ones)
    for target in ("Blond_Hair", "Young", "all"):
        entry = image_sets.entry(reader="celeba", folder="faces", target=target, unseen_groups=True)
        found = celeba.read_celeba(entry, tmp_path)
        assert found.facts["source"]["name"].startswith("CelebA (group counts as published)") == (target == "Blond_Hair")


def test_the_published_tables_add_up() -> None:
    """CUB has 11,788 images and CelebA 202,599: a slip of a digit would refuse everybody."""
    for table, total in ((published.WATERBIRDS, 11_788), (published.BLOND_MALE, 202_599)):
        assert sum(sum(split.groups) for split in table.values()) == total


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("list_attr_celeba.csv", "000003.jpg", "000002.jpg", "2 lines have an image named twice: line 3 (000002.jpg), line 4"),
        ("list_eval_partition.csv", "000003.jpg,0", "000002.jpg,0", "list_eval_partition.csv: 2 lines have an image named twice"),
        ("list_eval_partition.csv", "000003.jpg,0\n", "", "list different images: 12 and 11, 1 only in list_attr_celeba.csv "
         "(first 000003.jpg), 0 only in list_eval_partition.csv."),
        ("list_eval_partition.csv", "000003.jpg,0", "000003.jpg,7", "1 lines have a split other than train, val, test (0, 1, 2): "
         "line 4 (000003.jpg)"),
        ("list_attr_celeba.csv", "000003.jpg,1,-1,1,1", "000003.jpg,1,2,1,1", "1 lines have a value other than -1 and 1 for "
         "Blond_Hair: line 4 (000003.jpg)"),
        ("list_attr_celeba.csv", "000003.jpg,1,-1,1,1", "000003.jpg,1,-1,0,1", "1 lines have a value other than -1 and 1 for Male"),
        ("list_attr_celeba.csv", "Blond_Hair", "BlondHair", "has no attribute 'Blond_Hair'."),
        ("list_attr_celeba.csv", "image_id", "img", "lacks the columns image_id; it has img, 5_o_Clock_Shadow"),
        ("list_eval_partition.csv", "partition", "part", "lacks the columns partition"),
        ("list_attr_celeba.csv", "000003.jpg", "../000003.jpg", "list different images"),
    ],
)  # fmt: skip
def test_a_bad_list_is_named(tmp_path, refused, file, old, new, sentence) -> None:
    rewrite(image_sets.celeba(tmp_path / "faces") / file, old, new)
    assert sentence in refused(reader="celeba", folder="faces", published=False).message


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("list_attr_celeba.txt", "12\n", "", "the first line is not the number of images"),
        ("list_attr_celeba.txt", "12\n", "13\n", "announces 13 images and lists 12"),
        ("list_attr_celeba.txt", "000003.jpg   1 -1  1  1", "000003.jpg   1 -1  1", "1 lines have not 5 words: line 5 (4)."),
        ("list_eval_partition.txt", "000003.jpg 0", "000003.jpg", "1 lines have not 2 words: line 10 (1)."),
        ("list_attr_celeba.txt", "Young", "Male", "names a column twice"),
    ],
)
def test_a_bad_text_list_is_named(tmp_path, refused, file, old, new, sentence) -> None:
    rewrite(image_sets.celeba(tmp_path / "faces", "txt") / file, old, new)
    assert sentence in refused(reader="celeba", folder="faces", published=False).message


def test_a_path_in_both_lists_cannot_leave_the_folder(tmp_path, refused) -> None:
    folder = image_sets.celeba(tmp_path / "faces")
    for file in ("list_attr_celeba.csv", "list_eval_partition.csv"):
        rewrite(folder / file, "000003.jpg", "../../000003.jpg")
    error = refused(reader="celeba", folder="faces", published=False)
    assert "1 lines have a path that leaves the folder, or none: line 4 (../../000003.jpg)" in error.message


def test_missing_parts_are_named(tmp_path, refused) -> None:
    folder = image_sets.celeba(tmp_path / "faces")
    (folder / "img_align_celeba" / "000005.jpg").unlink()
    message = refused(reader="celeba", folder="faces", published=False).message
    assert "1 of 12 images are missing or cannot be read: 000005.jpg" in message
    shutil.rmtree(folder / "img_align_celeba")
    (folder / "list_eval_partition.csv").unlink()
    message = refused(reader="celeba", folder="faces").message
    assert message.endswith("lacks list_eval_partition.csv (or .txt), img_align_celeba (or img_align_celeba.zip).")
    image_sets.celeba(tmp_path / "zipped", images="whole")
    assert "set `folder` to that file" in refused(reader="celeba", folder="zipped").hint


def test_images_that_lie_elsewhere_are_refused(tmp_path, refused) -> None:
    """A link out of the folder would read files that the dataset does not have."""
    folder = image_sets.celeba(tmp_path / "faces")
    (folder / "img_align_celeba").rename(tmp_path / "elsewhere")
    (folder / "img_align_celeba").symlink_to(tmp_path / "elsewhere")
    assert "is a link that leaves" in refused(reader="celeba", folder="faces", published=False).message


def test_lists_in_folders_of_their_own_are_found(tmp_path, packed) -> None:
    """The official download has Anno, Eval and Img."""
    folder = image_sets.celeba(tmp_path / "faces", "txt", "zip")
    for part, file in (("Anno", "list_attr_celeba.txt"), ("Eval", "list_eval_partition.txt"), ("Img", "img_align_celeba.zip")):
        (folder / part).mkdir()
        (folder / file).rename(folder / part / file)
    assert len(packed(reader="celeba", folder="faces", published=False).index) == 12


def test_a_damaged_zip_is_named(tmp_path, refused) -> None:
    folder = image_sets.celeba(tmp_path / "faces", images="zip")
    path = folder / "img_align_celeba.zip"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("img_align_celeba/000004.jpg").header_offset + 200
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    message = refused(reader="celeba", folder="faces", published=False).message
    assert "img_align_celeba.zip: 1 of 12 images are missing or cannot be read: 000004.jpg." in message
    path.write_bytes(data[: len(data) // 2])
    error = refused(reader="celeba", folder="faces", published=False)
    assert "is no readable zip file" in error.message
    assert "cut short" in error.hint
    (tmp_path / "text.zip").write_text("no zip")
    assert "is no readable zip file" in refused(reader="celeba", folder="text.zip").message


def test_a_zip_without_lists_says_so(tmp_path, refused) -> None:
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
        archive.writestr("img_align_celeba/000001.jpg", b"x")
    error = refused(reader="celeba", folder="img_align_celeba.zip")
    assert "holds no list_attr_celeba.csv (or .txt)." in error.message


def test_a_zip_with_two_versions_of_an_image_is_refused(tmp_path, refused) -> None:
    """Kaggle's archive is nested once; an archive packed around both versions would read either."""
    folder = image_sets.celeba(tmp_path / "faces", images="zip")
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "a") as archive:
        archive.writestr("small/000002.jpg", image_sets.picture(2, "JPEG"))
    message = refused(reader="celeba", folder="faces", published=False).message
    assert "holds 000002.jpg twice: img_align_celeba/000002.jpg and small/000002.jpg." in message


def test_groups_are_those_of_the_definition(tmp_path) -> None:
    """g = 2 y + a, as in the published tables; WILDS numbers its groups otherwise."""
    image_sets.celeba(tmp_path / "faces")
    found = celeba.read_celeba(image_sets.entry(reader="celeba", folder="faces", published=False), tmp_path).columns
    assert found["group"].to_list() == (2 * found["y"] + found["a"]).to_list()
    assert reading.histogram(found)["val"] == {0: 1, 1: 1, 2: 1, 3: 1}
    assert found.schema["group"] == pl.Int16


def test_a_list_in_another_encoding_is_named(tmp_path, refused) -> None:
    path = image_sets.celeba(tmp_path / "faces") / "list_attr_celeba.csv"
    path.write_text(path.read_text(), encoding="utf-16")
    with pytest.raises(InputError, match="is not UTF-8 text: byte 0xff in line 1"):
        celeba.read_celeba(image_sets.entry(reader="celeba", folder="faces", published=False), tmp_path)
