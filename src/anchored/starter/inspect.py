"""What a folder holds, guessed from its files: the format, the splits, the labels, the groups, the sizes of some images."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anchored.errors import InputError
from anchored.locate import METADATA, archives, celeba_files, celeba_members, is_image, waterbirds_folder
from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.readers import published, reading, tables
from anchored.readers.archives import open_zip
from anchored.readers.catalogue import LABELLED
from anchored.readers.class_folders import class_folders, images_by_folder
from anchored.readers.encoded import Encoded
from anchored.readers.folder import NO_ATTRIBUTE
from anchored.readers.parquet_images import schema
from anchored.readers.reading import Reading

_SAMPLE = 32
# Below this many images an accuracy has a standard error of more than 9 points at 90 %.
_FEW = 10
_TABLE_HINT = (
    f"write a {METADATA} with a line an image: img_filename (path inside of the folder), y (class), place (attribute) and split "
    "(train, val, test)."
)
_FOLDERS_HINT = "Or make the folders train, val and test, each with a folder of images for every class."


@dataclass(frozen=True)
class Found:
    """A labelled dataset.

    Args:
        entry: of the configuration: reader, folder, and the keys that differ from the defaults.
        splits: images of each.
        classes: names of the labels 0, 1, ...
        attributes: names of the attribute's values; one without a name where there is no attribute.
        groups: names of the groups.
        histogram: images of each group in each split.
        lines: the histogram as text.
        sizes: (width, height) of the images of a sample.
        source: what tables will say of the origin.
        problems: what may spoil a comparison, in sentences.
    """

    entry: dict[str, Any]
    splits: dict[str, int]
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    groups: dict[str, str]
    histogram: dict[str, dict[int, int]]
    lines: list[str]
    sizes: list[tuple[int, int]]
    source: str
    problems: list[str]


def inspect(folder: Path) -> Found:
    """Looks at a dataset without writing anything.

    Args:
        folder: the folder, or a zip or parquet file.

    Raises:
        InputError: there are no labelled images, or their table cannot be read; says what is missing.
    """
    if not folder.exists():
        raise InputError(f"{folder} is missing.", "name the folder with your images.")
    problems: list[str] = []
    entry = _guess(folder, problems)
    found = _read(entry)
    columns = found.columns
    histogram = reading.histogram(columns)
    problems += _problems(histogram, found.facts["group_names"])
    attributes = tuple(found.facts.get("attributes", {"0": ""}).values())
    return Found(
        entry,
        {split: sum(histogram[split].values()) for split in tables.SPLITS},
        tuple(found.facts["classes"].values()),
        attributes,
        found.facts["group_names"],
        histogram,
        reading.histogram_lines(columns, found.facts["group_names"]),
        _sizes(found.images, problems),
        found.facts["source"]["name"],
        problems,
    )


def _guess(folder: Path, problems: list[str]) -> dict[str, Any]:
    """The configuration's entry for what lies there."""
    for guess in (_celeba, _table, _parquet, _folders):
        entry = guess(folder, problems)
        if entry is not None:
            return entry
    raise InputError(f"{folder} {_contents(folder)}: no labelled dataset that a reader knows.", _hint(folder))


def _celeba(folder: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        if folder.is_file():
            if folder.suffix.lower() != ".zip":
                return None
            celeba_members(open_zip(folder).namelist(), folder)
        else:
            celeba_files(folder)
    except InputError as error:
        if any(folder.glob("list_attr_celeba.*")):
            raise  # it is CelebA, and something of it is missing
        if folder.is_file() and folder.suffix.lower() == ".zip":
            raise InputError(
                f"{folder} is a zip file, but not CelebA's, the only one that is read with labels: {error.message}",
                "unpack it, and name the folder.",
            ) from error
        return None
    entry = {"reader": "celeba", "folder": str(folder)}
    return entry if _is_published(entry, published.BLOND_MALE, problems, "CelebA") else entry | {"published": False}


def _table(folder: Path, problems: list[str]) -> dict[str, Any] | None:
    if not folder.is_dir():
        return None
    try:
        home = waterbirds_folder(folder)
    except InputError:
        return None
    frame = tables.read_csv(home / METADATA)
    columns = frame.columns[1:]
    if {"img_filename", "y", "split", "place", "place_filename"} <= set(columns):
        entry = {"reader": "waterbirds", "folder": str(home)}
        if _is_published(entry, published.WATERBIRDS, [], "Waterbirds"):
            return entry
    return {"reader": "folder", "folder": str(home)} | _no_attribute(columns, problems)


def _parquet(folder: Path, problems: list[str]) -> dict[str, Any] | None:
    files = archives(folder, ".parquet")
    if not files:
        return None
    columns = schema(files[0]).names()
    return {"reader": "parquet", "folder": str(folder)} | _no_attribute(columns, problems)


def _folders(folder: Path, problems: list[str]) -> dict[str, Any] | None:
    if not folder.is_dir() or class_folders(folder) is None:
        return None
    problems.append(
        f"no {METADATA}: splits and classes are the names of folders, groups are the classes, the worst group is the worst class. "
        f"For groups by something else {_TABLE_HINT}"
    )
    return {"reader": "folder", "folder": str(folder), "attribute": NO_ATTRIBUTE}


def _no_attribute(columns: list[str], problems: list[str]) -> dict[str, str]:
    if tables.has_usual(columns, "attribute"):
        return {}
    problems.append(
        f"no column looks like an attribute ({', '.join(columns)}): groups are the classes, the worst group is the worst class. If "
        "one of them is, set `attribute` to its name."
    )
    return {"attribute": NO_ATTRIBUTE}


def _is_published(entry: dict[str, Any], table: Mapping[str, published.Published], problems: list[str], name: str) -> bool:
    try:
        counts = reading.histogram(_read(entry | {"published": False}).columns)
    except InputError:
        return False
    if published.is_published(table, counts):
        return True
    problems.append(f"the format is that of {name}, the group counts are not: `published: false` says that this is meant so.")
    return False


def _read(entry: Mapping[str, Any]) -> Reading:
    """The dataset as its reader sees it; the plan's entry is compiled as `anchored plan` would."""
    plan = expand(Config.model_validate({"name": "inspected", "datasets": {"found": entry}, "backbones": {}, "experiments": {}}))
    return LABELLED[entry["reader"]](plan["datasets"]["found"], Path())


def _problems(histogram: Mapping[str, Mapping[int, int]], names: Mapping[str, str]) -> list[str]:
    problems = []
    for split in tables.SPLITS:
        sizes = histogram[split]
        few = [f"{names[str(group)]} ({size})" for group, size in sizes.items() if size < _FEW]
        if few:
            listed = ", ".join(few[:4]) + (", ..." if len(few) > 4 else "")
            what = "learnt from" if split == "train" else "measured on"
            problems.append(f"{split}: {len(few)} groups have fewer than {_FEW} images: {listed}; what is {what} so few is chance.")
    absent = sorted(set(histogram["train"]) - set(histogram["test"]))
    if absent:
        problems.append(f"test has no images of {', '.join(names[str(group)] for group in absent[:4])}: no accuracy there.")
    return problems


def _sizes(images: Encoded, problems: list[str]) -> list[tuple[int, int]]:
    """Sizes of images that are spread evenly over the dataset; those that cannot be opened become a problem."""
    sizes, bad = [], []
    for number in np.unique(np.linspace(0, len(images.names) - 1, _SAMPLE).astype(int)).tolist():
        try:
            with Image.open(io.BytesIO(images.read(number))) as image:
                sizes.append(image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            bad.append(images.names[number])
    if bad:
        problems.append(f"{len(bad)} of {len(sizes) + len(bad)} images of a sample cannot be opened: {', '.join(bad[:3])}.")
    return sizes


def _contents(folder: Path) -> str:
    if folder.is_file():
        return f"is a {folder.suffix or 'nameless'} file"
    images = sum(1 for path in folder.rglob("*") if is_image(path.name))
    return f"holds {images} images and no table" if images else "holds no images"


def _hint(folder: Path) -> str:
    """What to write, with the folder's own first image for an example."""
    if folder.is_file():
        return f"name a folder, and {_TABLE_HINT}"
    classes = list(images_by_folder(folder))
    first = min((path.relative_to(folder) for path in folder.rglob("*") if is_image(path.name)), default=None)
    if first is None:
        return _TABLE_HINT
    label = first.parts[0] if len(first.parts) > 1 else "CLASS"
    named = f" Its folders ({', '.join(classes[:4])}{', ...' if len(classes) > 4 else ''}) may be the classes." if classes else ""
    example = f"    img_filename,y,place,split\n    {first.as_posix()},{label},PLACE,train"
    return f"{_TABLE_HINT}{named} {_FOLDERS_HINT} The table begins with, for example:\n{example}"

