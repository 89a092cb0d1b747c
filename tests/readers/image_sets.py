"""Small datasets in the formats that users have: real files with real (tiny) images in them.

The colour of an image tells its number, so that a test sees when an image and a label part: red is 10 times the number.
"""

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image, ImageDraw

from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.readers.published import WATERBIRDS

BIRD_COLUMNS = ("img_id", "img_filename", "y", "split", "place", "place_filename")
MIRROR = ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet", "test-00000-of-00001.parquet")

# Twelve lines that have every group in every split.
SPLITS = [line // 4 for line in range(12)]
LABELS = [line % 2 for line in range(12)]
PLACES = [line // 2 % 2 for line in range(12)]


def entry(name: str = "set", /, **dataset: Any) -> dict[str, Any]:
    """The plan's entry of a dataset, compiled from a configuration."""
    return plan(**{name: dataset})["datasets"][name]


def plan(**datasets: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of datasets alone."""
    return expand(Config.model_validate({"name": "sets", "datasets": datasets, "backbones": {}, "experiments": {}}))


def picture(number: int, form: str = "PNG", size: tuple[int, int] = (20, 16)) -> bytes:
    """An image file of one colour; JPEG keeps it to a few levels."""
    stream = io.BytesIO()
    Image.new("RGB", size, (10 * number % 256, number // 25, 0)).save(stream, form)
    return stream.getvalue()


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def waterbirds(folder: Path) -> Path:
    """Twelve images in the format of Waterbirds, with its columns."""
    rows = []
    for line in range(12):
        name = f"{line:03d}.Species/{line}.jpg"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(picture(line, "JPEG"))
        rows.append((line + 1, name, LABELS[line], SPLITS[line], PLACES[line], "/o/ocean/1.jpg"))
    write_table(folder / "metadata.csv", BIRD_COLUMNS, rows)
    return folder


def published_table(folder: Path, swap: int = 0) -> Path:
    """A table with the published counts; `swap` lines of train get the place of their neighbours. No images."""
    rows = []
    for number, split in enumerate(("train", "val", "test")):
        for group, count in enumerate(WATERBIRDS[split].groups):
            rows += [(number, group // 2, group % 2)] * count
    rows = [(split, y, 1 - place) if line < swap else (split, y, place) for line, (split, y, place) in enumerate(rows)]
    lines = [(line + 1, f"{line}.jpg", y, split, place, "x") for line, (split, y, place) in enumerate(rows)]
    write_table(folder / "metadata.csv", BIRD_COLUMNS, lines)
    return folder


def own(folder: Path, labels: Sequence[Any], attributes: Sequence[Any], splits: Sequence[Any]) -> Path:
    """A folder with labels of one's own; images are PNG files."""
    rows = []
    for line, labelled in enumerate(zip(labels, attributes, splits, strict=True)):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / f"{line}.png").write_bytes(picture(line))
        rows.append((f"images/{line}.png", *labelled))
    write_table(folder / "metadata.csv", ("filename", "label", "background", "split"), rows)
    return folder


FACES = ("5_o_Clock_Shadow", "Blond_Hair", "Male", "Young")


def faces(count: int = 12) -> dict[str, dict[str, int]]:
    """Attributes -1 and 1 of each image of AvatarAttrs, which has every group of Blond_Hair and Male in every split."""
    return {
        f"{line + 1:06d}.jpg": {
            "5_o_Clock_Shadow": 1 if PLACES[line % 12] else -1, "Blond_Hair": 1 if LABELS[line % 12] else -1,
            "Male": 1 if PLACES[line % 12] else -1, "Young": 1 if line % 5 else -1,
        }
        for line in range(count)
    }  # fmt: skip


def face(attributes: Mapping[str, int], number: int) -> bytes:
    """A drawn face of 178 x 218 pixels that has its attributes, as JPEG.

    This is AvatarAttrs: a drawing in CelebA's format, to exercise its reader. It says nothing of faces. Beard and short hair stand
    for `Male` in this drawing only.
    """
    image = _avatar(attributes) or _drawing(attributes)
    image.putpixel((0, 0), (number % 256, 0, 0))  # no two files are alike
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def _avatar(attributes: Mapping[str, int]) -> Image.Image | None:
    try:
        import python_avatars as avatars
        import resvg_py
    except ImportError:
        return None
    male, blond = attributes["Male"] == 1, attributes["Blond_Hair"] == 1
    svg = avatars.Avatar(
        style=avatars.AvatarStyle.CIRCLE,
        top=avatars.HairType.SHORT_FLAT if male else avatars.HairType.STRAIGHT_1,
        hair_color=avatars.HairColor.BLONDE if blond else avatars.HairColor.BROWN,
        facial_hair=avatars.FacialHairType.BEARD_MEDIUM if male else avatars.FacialHairType.NONE,
    ).render()
    with Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=178)))) as drawn:
        image = Image.new("RGB", (178, 218), "white")
        image.paste(drawn.convert("RGB"), (0, 20))
    return image


def _drawing(attributes: Mapping[str, int]) -> Image.Image:
    image = Image.new("RGB", (178, 218), (150, 180, 200))
    draw = ImageDraw.Draw(image)
    hair = (230, 200, 90) if attributes["Blond_Hair"] == 1 else (70, 45, 30)
    long = attributes["Male"] == -1
    draw.ellipse((34, 30, 144, 200 if long else 130), fill=hair)
    draw.ellipse((46, 50, 132, 180), fill=(235, 200, 175))
    for eye in (70, 104):
        draw.ellipse((eye, 95, eye + 8, 103), fill=(40, 30, 30))
    draw.line((74, 148, 104, 148), fill=(170, 60, 60), width=4)
    if not long:
        draw.chord((50, 110, 128, 182), 10, 170, fill=hair)
    return image


def celeba(folder: Path, flavour: str = "csv", images: str = "folder") -> Path:
    """AvatarAttrs in a format of CelebA: lists as csv or txt; images as folder, nested, zip or (lists too) whole, a zip file."""
    known = faces()
    files = {name: face(attributes, number) for number, (name, attributes) in enumerate(known.items())}
    splits = {name: SPLITS[number] for number, name in enumerate(known)}
    lists = celeba_lists(known, splits, flavour)
    folder.mkdir(parents=True, exist_ok=True)
    if images == "whole":
        with zipfile.ZipFile(folder / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in lists.items():
                archive.writestr(name, text)
            for name, data in files.items():
                archive.writestr(f"img_align_celeba/img_align_celeba/{name}", data)
        return folder / "archive.zip"
    for name, text in lists.items():
        (folder / name).write_text(text)
    if images == "zip":
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(f"img_align_celeba/{name}", data)
        return folder
    place = folder / "img_align_celeba" / ("img_align_celeba" if images == "nested" else "")
    place.mkdir(parents=True)
    for name, data in files.items():
        (place / name).write_bytes(data)
    return folder


def celeba_lists(attributes: Mapping[str, Mapping[str, int]], splits: Mapping[str, Any], flavour: str) -> dict[str, str]:
    """Both lists as text, by file name. The list of splits is in reverse order: nobody may rely on the position."""
    names = list(next(iter(attributes.values())))
    rows = [[image, *(str(values[name]) for name in names)] for image, values in attributes.items()]
    parts = [[image, str(split)] for image, split in reversed(splits.items())]
    if flavour == "csv":
        lines = [",".join(row) for row in ([["image_id", *names], *rows])]
        divided = [",".join(row) for row in ([["image_id", "partition"], *parts])]
    else:
        padded = [f"{row[0]}  " + " ".join(f"{value:>2}" for value in row[1:]) for row in rows]
        lines = [str(len(rows)), " ".join(names) + " ", *padded]
        divided = [" ".join(row) for row in parts]
    return {
        f"list_attr_celeba.{flavour}": "\n".join(lines) + "\n",
        f"list_eval_partition.{flavour}": "\n".join(divided) + "\n",
    }


def mirror(folder: Path, *, struct: bool = True, files: Sequence[str] = MIRROR, split: bool = False, hub: bool = False) -> Path:
    """Twelve images over the files, labels as in the other formats; columns as in a public mirror of Waterbirds."""
    folder.mkdir(parents=True, exist_ok=True)
    per_file = 12 // len(files)
    for number, file in enumerate(files):
        lines = range(number * per_file, (number + 1) * per_file)
        data = [picture(line) for line in lines]
        structs = pl.Series([{"bytes": one, "path": f"{line}.png"} for line, one in zip(lines, data, strict=True)])
        columns: dict[str, Any] = {
            "image": structs if struct else data,
            "label": [LABELS[line] for line in lines],
            "place": [PLACES[line] for line in lines],
        }
        if split:
            columns["split"] = [("train", "validation", "test")[SPLITS[line]] for line in lines]
        features = {"label": {"names": ["landbird", "waterbird"], "_type": "ClassLabel"}, "place": {"_type": "Value"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if hub else None
        (folder / file).parent.mkdir(exist_ok=True)
        pl.DataFrame(columns).write_parquet(folder / file, row_group_size=3, metadata=metadata)
    return folder
