"""PaintBirds: the groups it promises, the same images from the same seed, and only pictures that were reviewed."""

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from debian_cases import cut_out, deb, digest, photograph, place, png, rcc
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anchored.errors import ConfigError, InputError
from anchored.fetch import paintbirds, pictures
from anchored.fetch.paintbirds import PLACES, SPLITS, Part, Recipe, build, scenes
from anchored.fetch.pictures import read_table
from anchored.files import file_digest

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
SMALL = Recipe(size=28, train=40, val=8, test=12)
ARCHIVE = "usr/share/places/water.rcc"


def small_parts() -> dict[Part, bytes]:
    """Three birds of either class and three photographs of either place, one of each for every split."""
    made: dict[Part, bytes] = {}
    for number, (label, split) in enumerate((label, split) for label in (*paintbirds.CLASSES, *PLACES) for split in SPLITS):
        bird = label in paintbirds.CLASSES
        data = cut_out(number) if bird else photograph(number)
        path = f"usr/share/birds/{label}-{split}.png" if bird else f"usr/share/places/{label}-{split}.png"
        path = f"{ARCHIVE}!in/{split}.png" if label == "water" else path
        box = None if bird else "0 0 0.5 1;0.5 0 1 1" if split == "train" else "0 0.1 1 1"
        package = "birds" if bird else "places"
        about = {"package": package, "path": path, "sha256": digest(data), "licence": "CC0-1.0", "credit": f"painter {number}"}
        made[Part.model_validate({"label": label, "split": split, "boxes": box, **about})] = data
    return made


def small_packages(parts: dict[Part, bytes]) -> dict[str, dict[str, bytes]]:
    members: dict[str, dict[str, bytes]] = {"birds": {}, "places": {}}
    inner = {part.path.partition("!")[2]: data for part, data in parts.items() if "!" in part.path}
    members["places"][ARCHIVE] = rcc(inner)
    for part, data in parts.items():
        if "!" not in part.path:
            members[part.package][part.path] = data
    for name, files in members.items():
        files[f"usr/share/doc/{name}/copyright"] = f"Files: * of {name}\n".encode()
    return members


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages in a cache, and a table that asks for them."""
    parts = small_parts()
    reviewed = {name: place(tmp_path / "cache", name, "1.0-1", files) for name, files in small_packages(parts).items()}
    monkeypatch.setattr(paintbirds, "read_table", lambda name, kind: list(parts))
    monkeypatch.setattr(pictures, "reviewed_packages", lambda: reviewed)
    return tmp_path / "cache"


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


@needs_dpkg
def test_the_folder_is_in_the_format_of_waterbirds(cache: Path, tmp_path: Path):
    build(tmp_path / "paintbirds", cache, recipe=SMALL)
    table = lines(tmp_path / "paintbirds")
    assert list(table[0]) == ["img_id", "img_filename", "y", "split", "place", "place_filename"]
    assert [int(line["img_id"]) for line in table] == list(range(1, 61))
    assert Counter(line["split"] for line in table) == {"0": 40, "1": 8, "2": 12}
    photos = {f"{part.package}:{part.path}": part.label for part in small_parts() if part.label in PLACES}
    for line in table:
        assert line["img_filename"].startswith({"0": "landbird/", "1": "waterbird/"}[line["y"]])
        assert photos[line["place_filename"]] == {"0": "land", "1": "water"}[line["place"]]
        with Image.open(tmp_path / "paintbirds" / line["img_filename"]) as image:
            assert (image.size, image.mode) == ((28, 28), "RGB")


@needs_dpkg
def test_the_source_digests_every_file_and_names_the_packages(cache: Path, tmp_path: Path):
    build(tmp_path / "paintbirds", cache, recipe=SMALL)
    source = json.loads((tmp_path / "paintbirds" / "SOURCE.json").read_text())
    assert list(source) == ["schema", "name", "version", "licences", "note", "files"]
    assert (source["schema"], source["name"]) == (1, "PaintBirds")
    assert source["note"] == "composites of photographs from Debian packages; not Waterbirds"
    assert source["licences"] == ["birds: GPL-2+", "places: GPL-2+"]
    found = tree(tmp_path / "paintbirds")
    del found["SOURCE.json"]
    assert source["files"] == found
    recipe = json.loads((tmp_path / "paintbirds" / "recipe.json").read_text())
    assert recipe["libraries"]["pillow"] == PIL.__version__
    assert recipe["packages"]["birds"] == {"version": "1.0-1", "sha256": pictures.reviewed_packages()["birds"].sha256}
    assert (tmp_path / "paintbirds" / "licences" / "places.copyright").read_text() == "Files: * of places\n"
    credit = (tmp_path / "paintbirds" / "CREDITS.md").read_text()
    assert "| usr/share/birds/landbird-train.png | CC0-1.0 | painter 0 |" in credit


@needs_dpkg
def test_a_rebuild_gives_the_same_files(cache: Path, tmp_path: Path):
    build(tmp_path / "one", cache, recipe=SMALL)
    build(tmp_path / "two", cache, recipe=SMALL)
    build(tmp_path / "three", cache, recipe=SMALL.model_copy(update={"seed": 1}))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    pixels = [json.loads((tmp_path / name / "recipe.json").read_text())["pixels"] for name in ("one", "three")]
    assert pixels[0] != pixels[1]


@needs_dpkg
def test_a_built_folder_is_replaced_whole_and_a_foreign_one_is_left_alone(cache: Path, tmp_path: Path):
    target = tmp_path / "paintbirds"
    build(target, cache, recipe=SMALL)
    (target / "stray").touch()
    build(target, cache, recipe=SMALL)
    assert not (target / "stray").exists()
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="mine holds files of somebody else"):
        build(foreign, cache, recipe=SMALL)
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]


@needs_dpkg
def test_a_changed_picture_is_refused_by_name_and_nothing_is_left(cache: Path, tmp_path: Path):
    """Digests of the pictures decide; the error names both packages, for that is what a user can exchange."""
    files = small_packages(small_parts())["places"]
    files["usr/share/places/land-val.png"] = photograph(99)
    del files["usr/share/places/land-test.png"]
    for old in cache.glob("places_*"):
        old.unlink()
    other = place(cache, "places", "2.0-1", files)
    with pytest.raises(InputError) as caught:
        build(tmp_path / "paintbirds", cache, recipe=SMALL)
    reviewed = pictures.reviewed_packages()["places"]
    assert caught.value.message == (
        f"places 2.0-1 (sha256 {other.sha256[:16]}) is not the reviewed package, 1.0-1 (sha256 {reviewed.sha256[:16]}): "
        "of its 6 pictures that are needed, 2 are not as reviewed: "
        "usr/share/places/land-val.png differs; usr/share/places/land-test.png is missing."
    )
    assert "every picture is checked by its own digest" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


@needs_dpkg
def test_another_package_with_the_same_pictures_is_as_good(cache: Path, tmp_path: Path):
    build(tmp_path / "one", cache, recipe=SMALL)
    files = small_packages(small_parts())["birds"]
    for old in cache.glob("birds_*"):
        old.unlink()
    place(cache, "birds", "1.0-1+rebuilt", {**files, "usr/share/birds/another.png": b""})
    build(tmp_path / "two", cache, recipe=SMALL)
    one, two = (json.loads((tmp_path / name / "recipe.json").read_text()) for name in ("one", "two"))
    assert one["pixels"] == two["pixels"]
    assert two["packages"]["birds"]["version"] == "1.0-1+rebuilt"


@needs_dpkg
def test_a_damaged_archive_of_pictures_is_refused(cache: Path, tmp_path: Path):
    files = small_packages(small_parts())["places"]
    (cache / "places_1.0-1_all.deb").write_bytes(deb("places", "1.0-1", {**files, ARCHIVE: b"qres"}))
    with pytest.raises(InputError, match=r"3 are not as reviewed: usr/share/places/water\.rcc!in/train\.png cannot be read"):
        build(tmp_path / "paintbirds", cache, recipe=SMALL)


@given(
    train=st.integers(8, 120), val=st.integers(1, 5), test=st.integers(1, 5), share=st.floats(0.1, 0.9), rho=st.floats(0.5, 1.0),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_groups_are_as_large_as_the_recipe_says(train: int, val: int, test: int, share: float, rho: float, seed: int):
    recipe = Recipe(size=16, train=train, val=4 * val, test=4 * test, waterbird_share=share, correlation=rho, seed=seed)
    parts = small_parts()
    made = list(scenes(list(parts), parts, recipe))
    groups = Counter((scene.split, scene.y, scene.place) for scene in made)
    assert [groups[1, y, p] for y in (0, 1) for p in (0, 1)] == [val] * 4
    assert [groups[2, y, p] for y in (0, 1) for p in (0, 1)] == [test] * 4
    waterbirds = groups[0, 1, 0] + groups[0, 1, 1]
    assert len(made) == train + 4 * val + 4 * test
    assert abs(waterbirds - share * train) <= 0.5 + 1e-9
    for y, size in ((0, train - waterbirds), (1, waterbirds)):
        assert abs(groups[0, y, 1 - y] - (1 - rho) * size) <= 0.5 + 1e-9


def test_defaults_have_a_small_worst_group():
    """712, 38, 13 and 237: shares like those of Waterbirds (73, 4, 1, 22 per cent)."""
    y, where = paintbirds._labels(Recipe())[0]
    assert np.bincount(2 * y + where).tolist() == [712, 38, 13, 237]


@pytest.mark.parametrize("cut_outs", ["shared", "disjoint"])
def test_no_photograph_of_a_place_is_in_two_splits(cut_outs: str):
    parts = small_parts()
    made = list(scenes(list(parts), parts, SMALL.model_copy(update={"cut_outs": cut_outs})))
    photos = [{scene.place_filename for scene in made if scene.split == split} for split in range(3)]
    assert not any(photos[one] & photos[other] for one, other in ((0, 1), (0, 2), (1, 2)))
    birds = [{scene.bird for scene in made if scene.split == split} for split in range(3)]
    assert birds[0] == ({"landbird-train", "waterbird-train"} if cut_outs == "disjoint" else birds[1] | birds[2])


def test_the_bird_is_wholly_inside_and_as_large_as_the_recipe_says():
    """One colour on black: what is not black is the bird."""
    recipe = Recipe(size=64, train=60, val=4, test=4, rotation=0)
    parts = {part: black() if part.label in PLACES else data for part, data in small_parts().items()}
    for scene in scenes(list(parts), parts, recipe):
        left, top, right, bottom = scene.pixels.getbbox() or (0, 0, 0, 0)
        assert 0.5 * 64 - 1 <= max(right - left, bottom - top) <= 0.8 * 64 + 1
        inside = np.asarray(scene.pixels)[top:bottom, left:right].reshape(-1, 3)
        assert (inside == inside[0]).all()


def black() -> bytes:
    return png(Image.new("RGB", (50, 40)))


def test_squares_stay_inside_their_boxes():
    """The left half of this photograph is red, the right half blue; a box on either half must not see the other."""
    halves = Image.new("RGB", (80, 40), (255, 0, 0))
    halves.paste((0, 0, 255), (40, 0, 80, 40))
    part = next(part for part in small_parts() if part.label == "land" and part.split == "train")
    left, right = paintbirds._crops(part, png(halves))
    rng = np.random.default_rng(0)
    for _ in range(20):
        for crop, colour in ((left, (255, 0, 0)), (right, (0, 0, 255))):
            square = paintbirds.random_square(rng, crop, (0.55, 1.0), 16)
            assert square.getcolors() == [(256, colour)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"boxes": None}, "photographs of places have boxes"),
        ({"boxes": "0 0 1.2 1"}, "is no box inside the photograph"),
        ({"boxes": "0.5 0 0.5 1"}, "is no box inside the photograph"),
        ({"sha256": "abc"}, "String should match pattern"),
        ({"split": "dev"}, "Input should be 'train', 'val' or 'test'"),
    ],
)
def test_a_line_of_the_table_that_cannot_be_is_refused(change: dict[str, Any], sentence: str):
    good = next(part for part in small_parts() if part.label == "land").model_dump()
    with pytest.raises(ValueError, match=sentence):
        Part.model_validate({**good, **change})


def test_the_table_holds_what_was_reviewed():
    parts = read_table(paintbirds.TABLE, Part)
    assert Counter(part.label for part in parts) == {"waterbird": 12, "landbird": 22, "water": 10, "land": 13}
    assert len({(part.package, part.path) for part in parts}) == len({part.sha256 for part in parts}) == len(parts) == 57
    assert {part.package for part in parts} == set(pictures.reviewed_packages())
    assert all(part.licence and part.credit for part in parts)


def test_the_splits_of_the_table_are_the_draw_its_docstring_describes():
    """Nobody moved a photograph to where the numbers look better."""
    parts = read_table(paintbirds.TABLE, Part)
    rng = np.random.default_rng(0)
    for label, sizes in {"waterbird": (6, 2, 4), "landbird": (11, 4, 7), "water": (5, 2, 3), "land": (6, 3, 4)}.items():
        members = [part.split for part in parts if part.label == label]
        drawn = np.empty(len(members), dtype=object)
        drawn[rng.permutation(len(members))] = np.repeat(SPLITS, sizes)
        assert members == drawn.tolist()


@pytest.mark.skipif("ANCHORED_NETWORK" not in os.environ, reason="set ANCHORED_NETWORK=1 to download 320 MB of Debian packages")
def test_the_real_packages_give_the_known_pixels(tmp_path: Path):
    """ANCHORED_NETWORK may name a folder that holds the packages already."""
    folder = Path(os.environ["ANCHORED_NETWORK"])
    build(tmp_path / "paintbirds", folder if folder.is_dir() else tmp_path / "cache")
    recipe = json.loads((tmp_path / "paintbirds" / "recipe.json").read_text())
    if recipe["libraries"]["pillow"] != "13.0.0":
        pytest.skip(f"the pixels are known for Pillow 13.0.0, this is {recipe['libraries']['pillow']}")
    assert recipe["pixels"] == "8d0ad80832cc7599f222615dca63a51f62a8ea5d556c484ed135cbf53ee3aaec"
