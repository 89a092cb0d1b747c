"""Where the files of a dataset lie: people unpack archives in many ways. Standard library only, since engines ask as well."""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchored.errors import InputError
from anchored.paths import source_file

METADATA = "metadata.csv"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
"""Suffixes, in lower case, of the files that are taken for images."""
# The folders that the archives of group DRO and of WILDS unpack to.
_WATERBIRDS = ("waterbird_complete95_forest2water2", "waterbirds_v1.0")
_LISTS = ("list_attr_celeba", "list_eval_partition")
_FACES = "img_align_celeba"
_HINT = "place the dataset there, or correct `folder` in the configuration."


@dataclass(frozen=True)
class CelebaFiles:
    """The files of CelebA.

    Args:
        attributes: the attribute list.
        partition: the list of splits.
        images: the folder or zip file of the images.
    """

    attributes: Path
    partition: Path
    images: Path


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its suffix; hidden files are not."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not os.path.basename(name).startswith(".")


def require_folder(folder: Path) -> None:
    """Raises InputError where `folder` is no folder."""
    if not folder.is_dir():
        what = "is a file, a folder is needed" if folder.exists() else "is missing"
        raise InputError(f"{folder} {what}.", _HINT)


def waterbirds_folder(folder: Path) -> Path:
    """The folder with metadata.csv: `folder` itself, or the one inside of it.

    Raises:
        InputError: there is none, or several.
    """
    require_folder(folder)
    if (folder / METADATA).is_file():
        return folder
    inside = [child for child in sorted(folder.iterdir()) if (child / METADATA).is_file()]
    known = [child for child in inside if child.name in _WATERBIRDS] or inside
    if len(known) == 1:
        return known[0]
    if known:
        names = ", ".join(child.name for child in known[:3])
        raise InputError(f"{folder} holds {len(known)} folders with a {METADATA}: {names}.", "name one of them in `folder`.")
    raise InputError(
        f"{folder} holds no {METADATA}, nor does a folder in it.",
        f"`folder` is the one that the archive unpacks to, {' or '.join(_WATERBIRDS)}.",
    )


def table_file(folder: Path) -> Path:
    """`metadata.csv` of a folder of one's own.

    Raises:
        InputError: it is missing; names a folder inside that has one.
    """
    require_folder(folder)
    path = folder / METADATA
    if not path.is_file():
        inside = next((child for child in sorted(folder.iterdir()) if (child / METADATA).is_file()), None)
        raise InputError(f"{path} is missing.", f"set `folder` to {inside}, which has one." if inside else _HINT)
    return path


def celeba_files(folder: Path) -> CelebaFiles:
    """Lists and images of CelebA in a folder, also where they lie in folders of their own (Anno, Eval, Img).

    Raises:
        InputError: something is missing; says what.
    """
    require_folder(folder)
    places = [folder, *(child for child in sorted(folder.iterdir()) if child.is_dir() and child.name != _FACES)]
    lists = [_first(places, (f"{stem}.csv", f"{stem}.txt")) for stem in _LISTS]
    images = _first([*places], (_FACES, f"{_FACES}.zip"))
    missing = [f"{stem}.csv (or .txt)" for stem, path in zip(_LISTS, lists, strict=True) if path is None]
    missing += [] if images else [f"{_FACES} (or {_FACES}.zip)"]
    if lists[0] is None or lists[1] is None or images is None:
        whole = [file.name for file in sorted(folder.glob("*.zip")) if file.name != f"{_FACES}.zip"]
        hint = f"if {whole[0]} holds all of it, set `folder` to that file." if whole else _HINT
        raise InputError(f"{folder} lacks {', '.join(missing)}.", hint)
    nested = images / _FACES
    return CelebaFiles(lists[0], lists[1], nested if nested.is_dir() else images)


def celeba_members(names: list[str], where: Path) -> tuple[str, str]:
    """The members of a zip file that are CelebA's attribute list and list of splits.

    Raises:
        InputError: one is missing.
    """
    found = []
    for stem in _LISTS:
        members = sorted(name for name in names if Path(name).name in (f"{stem}.csv", f"{stem}.txt") and "__MACOSX" not in name)
        if not members:
            raise InputError(
                f"{where} holds no {stem}.csv (or .txt).",
                "a zip file has to hold lists and images; where the lists lie beside it, set `folder` to their folder.",
            )
        found.append(members[0])
    return found[0], found[1]


def archives(path: Path, suffix: str) -> list[Path]:
    """The files with `suffix` that `path` stands for: itself, or those in the folder, at any depth, in the order of their paths."""
    if path.is_file():
        return [path] if path.suffix.lower() == suffix else []
    return sorted(file for file in path.rglob(f"*{suffix}") if file.is_file() and not file.name.startswith("."))


def watched(entry: Mapping[str, Any], root: Path) -> list[Path]:
    """The lists and archives that an entry is read from, as far as they exist: what a command looks at before it says "nothing to
    do". Image files of a folder are left out: there may be a million of them.
    """
    if "of" in entry:
        return watched(entry["of"], root)
    folder = root / str(entry.get("folder"))
    try:
        match entry["reader"]:
            case "waterbirds":
                home = waterbirds_folder(folder)
                found = [home / METADATA, source_file(home), source_file(folder)]
            case "celeba" if zipfile.is_zipfile(folder):
                found = [folder, source_file(folder)]
            case "celeba":
                files = celeba_files(folder)
                found = [files.attributes, files.partition, files.images, source_file(folder)]
            case "folder":
                found = [folder / METADATA, source_file(folder)]
            case "parquet":
                found = [*archives(folder, ".parquet"), source_file(folder)]
            case "images":
                found = [folder, source_file(folder), *_archives(folder)]
            case _:
                found = []
    except (InputError, OSError):
        return []  # the reader says what is wrong, and where
    return [path for path in dict.fromkeys(found) if path.is_file()]


def _archives(folder: Path) -> list[Path]:
    """The archives of a bank, at any depth; none in a folder of images, which is left at the first one: there may be a million."""
    found: list[Path] = []
    for place, _, names in os.walk(folder):
        if any(map(is_image, names)):
            return []
        found += [Path(place, name) for name in names if Path(name).suffix.lower() in (".tar", ".parquet") and name[0] != "."]
    return sorted(found)


def _first(places: list[Path], names: tuple[str, ...]) -> Path | None:
    return next((place / name for place in places for name in names if (place / name).exists()), None)
