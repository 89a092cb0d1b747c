"""What tables are told of the images: SOURCE.json, or that nothing is known beyond the folder's name."""

import json
from pathlib import Path

import image_sets
import pytest

from anchored.errors import InputError
from anchored.files import file_digest
from anchored.readers.origin import preprocessing

SOURCE = {"schema": 1, "name": "PaintBirds", "version": "2", "licences": ["GPL-2.0-or-later", "CC0-1.0"], "note": "34 cut-outs."}


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return image_sets.waterbirds(tmp_path / "birds")


def test_what_the_maker_says_is_copied(birds, packed) -> None:
    """A table made with drawn birds must not be read as one of Waterbirds."""
    (birds / "SOURCE.json").write_text(json.dumps(SOURCE | {"made_from": "x"}))
    manifest = packed(reader="waterbirds", folder="birds", published=False).manifest
    assert manifest["source"] == {key: value for key, value in SOURCE.items() if key != "schema"}


def test_files_that_the_maker_lists_must_be_there_as_they_were(birds, packed, refused) -> None:
    """A changed folder under the maker's name would give tables of the maker's dataset."""
    names = ["metadata.csv", "000.Species/0.jpg", "001.Species/1.jpg"]
    files = {name: file_digest(birds / name) for name in names}
    (birds / "SOURCE.json").write_text(json.dumps(SOURCE | {"files": files | {"archive.tar.gz": "0" * 64}, "made_with": "x"}))
    (birds / "001.Species" / "1.jpg").write_bytes(image_sets.picture(7, "JPEG"))
    error = refused(reader="waterbirds", folder="birds", published=False)
    assert error.message.endswith("birds: 1 files are not those that SOURCE.json lists: 001.Species/1.jpg.")
    assert "remove SOURCE.json: it is another dataset" in error.hint
    (birds / "001.Species" / "1.jpg").write_bytes(image_sets.picture(1, "JPEG"))
    source = packed(reader="waterbirds", folder="birds", published=False).manifest["source"]
    assert source["name"] == "PaintBirds"
    assert len(source["digest"]) == 64
    assert "files" not in source
    (birds / "metadata.csv").write_text((birds / "metadata.csv").read_text() + "\n")
    with pytest.raises(InputError, match=r"1 files are not those that SOURCE.json lists: metadata.csv"):
        packed(reader="waterbirds", folder="birds", published=False)


def test_an_archive_has_its_description_beside_it(tmp_path, packed) -> None:
    path = image_sets.celeba(tmp_path / "faces", images="whole")
    (path.parent / "archive.zip.source.json").write_text(json.dumps(SOURCE | {"name": "AvatarAttrs"}))
    manifest = packed(reader="celeba", folder="faces/archive.zip", published=False).manifest
    assert manifest["source"]["name"] == "AvatarAttrs"


def test_a_changed_source_is_noticed(birds, packed) -> None:
    """The manifest would keep telling the old one."""
    packed(reader="waterbirds", folder="birds", published=False)
    (birds / "SOURCE.json").write_text(json.dumps(SOURCE))
    assert packed(reader="waterbirds", folder="birds", published=False).manifest["source"]["name"] == "PaintBirds"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "SOURCE.json: schema: Input should be 1."),
        ({"name": ""}, "SOURCE.json: name: String should have at least 1 character."),
        ({"licences": "CC0-1.0"}, "SOURCE.json: licences: "),
        ({"files": ["a.png"]}, "SOURCE.json: files: Input should be a valid dictionary."),
    ],
)
def test_a_wrong_key_is_named(birds, refused, change, sentence) -> None:
    (birds / "SOURCE.json").write_text(json.dumps(SOURCE | change))
    assert sentence in refused(reader="waterbirds", folder="birds", published=False).message


@pytest.mark.parametrize("text", ["{", "[1]", "\udcff"])
def test_what_is_no_description_is_refused(birds, refused, text) -> None:
    (birds / "SOURCE.json").write_text(text, errors="surrogateescape")
    assert "SOURCE.json" in refused(reader="waterbirds", folder="birds", published=False).message


def test_steps_are_told_in_words() -> None:
    entry = image_sets.entry(reader="celeba", folder="x", size=224)
    assert preprocessing(entry) == {"convention": "group-dro", "steps": "centre 178, 224x224 bilinear"}
