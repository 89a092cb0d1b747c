"""Images of the user's own: a folder in the Waterbirds format, and an unlabelled one."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anchored.data.folder import read_bank, read_labelled
from anchored.data.step import prepare
from anchored.data.store import open_store
from anchored.errors import InputError
from anchored.paths import Paths
from anchored.plan.preprocessing import transform

HEADER = "img_id,img_filename,y,split,place,place_filename"


def entry(**changes: Any) -> dict[str, Any]:
    found = {"reader": "folder", "folder": "birds", "size": 8, "seed": 5, "threads": 1, "labelled": True, **changes}
    return {"transform": transform("short-side", "scenes", found["size"]), **found}


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Twelve flat colours: the value of an image tells its line."""
    folder = tmp_path / "birds"
    lines = [HEADER]
    for line in range(12):
        name = f"{line:03d}.Species/{line}.png"
        (folder / name).parent.mkdir(parents=True)
        Image.new("RGB", (20, 12 + line), (line * 10, 0, 0)).save(folder / name)
        lines.append(f"{line + 1},{name},{line % 2},{line // 4},{line // 2 % 2},x.jpg")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def replace_line(folder: Path, number: int, text: str) -> None:
    lines = (folder / "metadata.csv").read_text().splitlines()
    lines[number] = text
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def test_a_waterbirds_folder_becomes_a_store(birds: Path) -> None:
    """Image and label of a line must stay together: a shifted table would still train."""
    root = birds.parent
    plan = {"datasets": {"birds": entry()}}
    prepare(plan, "birds", Paths(root))
    store = open_store(Paths(root).data("birds"))
    assert store.packed.shape == (12, 8, 8, 3)
    for split, lines in {"train": range(4), "val": range(4, 8), "test": range(8, 12)}.items():
        rows = store.rows(split, 0)
        assert store.packed[rows, 4, 4, 0].tolist() == [line * 10 for line in lines]
        assert store.column("y", rows).tolist() == [line % 2 for line in lines]
        assert store.column("group", rows).tolist() == [2 * (line % 2) + line // 2 % 2 for line in lines]
    assert store.manifest["groups"]["train"] == {"0": 1, "1": 1, "2": 1, "3": 1}


def test_the_centre_is_kept_at_its_proportions(tmp_path: Path) -> None:
    """A squashed image would be another dataset; the short side fills the frame and the long side is cut on both ends."""
    folder = tmp_path / "wide"
    folder.mkdir()
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(folder / "a.png")
    images = np.stack(list(read_bank(entry(folder="wide", limit=None), tmp_path)))
    assert images.shape == (1, 8, 8, 3)
    assert images[0, :, 1:-1].min() == 255


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("3,002.Species/2.png,0,7,1,x.jpg", "1 lines have a split other than train, val, test"),
        ("3,002.Species/2.png,bird,0,1,x.jpg", "1 lines have a label that is no integer from 0"),
        ("3,002.Species/2.png,-1,0,1,x.jpg", "1 lines have a label that is no integer from 0"),
        ("3,001.Species/1.png,0,0,1,x.jpg", "2 lines have an image named twice: line 3 (001.Species/1.png), line 4"),
        ("3,../secret.png,0,0,1,x.jpg", "1 lines have a path that leaves the folder"),
        ("3,/etc/passwd,0,0,1,x.jpg", "1 lines have a path that leaves the folder"),
        ("3,002.Species/none.png,0,0,1,x.jpg", "1 images are missing or cannot be read: 002.Species/none.png"),
    ],
)
def test_a_bad_line_is_named(birds: Path, line: str, sentence: str) -> None:
    replace_line(birds, 3, line)
    with pytest.raises(InputError) as caught:
        list(read_labelled(entry(), birds.parent)[0])
    assert sentence in caught.value.message


def test_a_corrupt_image_is_named_and_nothing_is_written(birds: Path) -> None:
    (birds / "004.Species/4.png").write_bytes(b"\x89PNG no image")
    paths = Paths(birds.parent)
    with pytest.raises(InputError, match=r"1 images are missing or cannot be read: 004.Species/4.png"):
        prepare({"datasets": {"birds": entry()}}, "birds", paths)
    assert list(paths.data("birds").iterdir()) == []


def test_missing_columns_are_listed(birds: Path) -> None:
    replace_line(birds, 0, HEADER.replace("split", "fold"))
    with pytest.raises(InputError, match="lacks the columns split; it has img_id"):
        read_labelled(entry(), birds.parent)


def test_a_bank_is_drawn_by_its_seed(birds: Path) -> None:
    """Ten thousand images of a million: the list follows from the seed alone."""
    bank = entry(reader="images", limit=5)
    first = np.stack(list(read_bank(bank, birds.parent)))
    assert np.array_equal(first, list(read_bank(bank, birds.parent)))
    assert not np.array_equal(first, list(read_bank({**bank, "seed": 6}, birds.parent)))
    assert len(read_bank({**bank, "limit": None}, birds.parent)) == 12
    with pytest.raises(InputError, match="holds 12 images, 13 are needed"):
        read_bank({**bank, "limit": 13}, birds.parent)


def test_packing_holds_a_few_images_at_a_time(birds: Path) -> None:
    """A bank of ten thousand images of 256 pixels has 2 GB, a large dataset 30: they go to the file one by one."""
    folder = birds.parent / "many"
    folder.mkdir()
    for number in range(40):
        Image.new("RGB", (256, 300), (number, 0, 0)).save(folder / f"{number:02d}.png")
    plan = {"datasets": {"many": entry(reader="images", folder="many", size=256, limit=None, labelled=False)}}
    prepare({"datasets": {"birds": entry()}}, "birds", Paths(birds.parent))  # imports what a step imports
    tracemalloc.start()
    prepare(plan, "many", Paths(birds.parent))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    store = open_store(Paths(birds.parent).data("many"))
    assert store.packed.shape == (40, 256, 256, 3)
    assert store.packed[:, 0, 0, 0].tolist() == list(range(40))
    assert isinstance(store.packed, np.memmap)
    assert peak < store.packed.nbytes / 2
