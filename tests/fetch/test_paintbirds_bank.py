"""The bank: as many crops of every photograph, none of a photograph that PaintBirds shows."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from debian_cases import digest, photograph, place
from PIL import Image

from anchored.fetch import paintbirds, paintbirds_bank, pictures
from anchored.fetch.paintbirds import Part
from anchored.fetch.paintbirds_bank import Recipe, build
from anchored.fetch.pictures import Picture, read_table

SMALL = Recipe(size=16, crops=3)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {f"usr/share/photos/{number}.png": photograph(number) for number in range(4)}
    terms = {"licence": "CC0-1.0", "credit": "nobody"}
    table = [Picture(package="photos", path=path, sha256=digest(data), **terms) for path, data in files.items()]
    reviewed = {"photos": place(tmp_path / "cache", "photos", "1.0-1", files)}
    monkeypatch.setattr(paintbirds_bank, "read_table", lambda name, kind: table)
    monkeypatch.setattr(pictures, "reviewed_packages", lambda: reviewed)
    return tmp_path / "cache"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_every_photograph_gives_the_same_number_of_crops(cache: Path, tmp_path: Path):
    build(tmp_path / "bank", cache, recipe=SMALL)
    source = json.loads((tmp_path / "bank" / "SOURCE.json").read_text())
    images = sorted(name for name in source["files"] if name.endswith(".png"))
    assert Counter(name.rsplit("_", 1)[0] for name in images) == {f"images/{number:03d}_{number}": 3 for number in range(4)}
    assert len({source["files"][name] for name in images}) == 12
    for name in images:
        with Image.open(tmp_path / "bank" / name) as image:
            assert (image.size, image.mode) == ((16, 16), "RGB")
    assert json.loads((tmp_path / "bank" / "recipe.json").read_text())["images"] == 12


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_a_rebuild_gives_the_same_files(cache: Path, tmp_path: Path):
    sources = []
    for name in ("one", "two"):
        build(tmp_path / name, cache, recipe=SMALL)
        sources.append((tmp_path / name / "SOURCE.json").read_bytes())
    assert sources[0] == sources[1]


def test_no_photograph_of_the_bank_is_in_paintbirds():
    """Neither by name nor by content."""
    bank, birds = read_table(paintbirds_bank.TABLE, Picture), read_table(paintbirds.TABLE, Part)
    assert not {(one.package, one.path) for one in bank} & {(one.package, one.path) for one in birds}
    assert not {one.sha256 for one in bank} & {one.sha256 for one in birds}


def test_the_table_holds_what_was_reviewed():
    bank = read_table(paintbirds_bank.TABLE, Picture)
    assert Counter(one.package for one in bank) == {"gcompris-qt-data": 236, "tuxpaint-data": 10, "lomiri-wallpapers-16.04": 10}
    assert len({one.sha256 for one in bank}) == 256
    assert len(bank) * Recipe().crops == 3072
    assert all(one.licence and one.credit for one in bank)
