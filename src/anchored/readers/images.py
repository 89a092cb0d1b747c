"""Unlabelled images: a folder at any depth, zip and tar files, parquet files. All of them, or a number drawn by the seed."""

import os
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from anchored.errors import InputError
from anchored.locate import is_image
from anchored.readers import archives, parquet_images, reading, tables
from anchored.readers.encoded import Encoded, FolderImages
from anchored.readers.parquet import image_column
from anchored.readers.parquet_images import ParquetImages, Row
from anchored.readers.reading import Reading

Choose = Callable[[int], list[int]]


def read_images(entry: Mapping[str, Any], root: Path) -> Reading:
    """A bank, in the order of the images' names.

    Raises:
        InputError: nothing is there, there is no image, or fewer than `limit`, a link leaves the folder or leads to another one, an
            archive is damaged.
    """
    where = root / entry["folder"]
    if not where.exists():
        raise InputError(f"{where} is missing.", "place the images there, or correct `folder` in the configuration.")

    def choose(count: int) -> list[int]:
        return draw(count, entry, where)

    read, files = _format(where)
    images = read(where, files, choose)
    return Reading(images, pl.DataFrame(), reading.general_facts(entry, where, where))


def draw(count: int, entry: Mapping[str, Any], where: Path) -> list[int]:
    """Which of `count` images take part, in order: `limit` of them drawn by the seed, or all.

    Raises:
        InputError: there are fewer than `limit`, or none.
    """
    limit = entry["limit"]
    if count < (limit or 1):
        raise InputError(f"{where} holds {count} images, {limit or 1} are needed.", "check `folder` and `limit`.")
    if not limit:
        return list(range(count))
    return np.sort(np.random.default_rng([entry["seed"]]).choice(count, size=limit, replace=False)).tolist()


def _format(where: Path) -> tuple[Callable[[Path, list[str], Choose], Encoded], list[str]]:
    """How `where` is read, and the names of its files of that kind, inside of it and sorted."""
    if where.is_file():
        suffix = where.suffix.lower()
        if suffix not in _ARCHIVES:
            raise InputError(f"{where} is neither a folder nor a .zip, .tar or .parquet file.", "unpack compressed tar files.")
        return _ARCHIVES[suffix], []
    # One walk for all kinds: there may be a million files.
    found: dict[str, list[str]] = {}
    linked: list[str] = []
    for folder, folders, files in os.walk(where):
        linked += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
        inside = os.path.relpath(folder, where)
        for name in files:
            kind = "images" if is_image(name) else os.path.splitext(name)[1].lower()
            if kind == "images" or (kind in (".tar", ".parquet") and not name.startswith(".")):
                found.setdefault(kind, []).append(posixpath.normpath(posixpath.join(inside, name)))
    if linked:
        shown = ", ".join(os.path.relpath(path, where) for path in linked[:3])
        raise InputError(
            f"{where}: {len(linked)} folders are links, which are not followed: {shown}.",
            "place the images themselves there, or set `folder` to where they are.",
        )
    if len(found) > 1:
        listed = ", ".join(f"{len(names)} {'images' if kind == 'images' else f'{kind} files'}" for kind, names in found.items())
        raise InputError(f"{where} holds {listed}.", "a bank is one of these: name a folder or a file inside with `folder`.")
    kind, names = next(iter(found.items()), ("images", []))
    return _folder if kind == "images" else _ARCHIVES[kind], sorted(names)


def _folder(where: Path, names: list[str], choose: Choose) -> Encoded:
    chosen = [names[number] for number in choose(len(names))]
    outside = [name for name, leaves in zip(chosen, tables.leaving(where, chosen), strict=True) if leaves]
    if outside:
        raise InputError(
            f"{where}: {len(outside)} images are links that leave the folder: {', '.join(outside[:3])}.",
            "place the files themselves there, or set `folder` to where they are.",
        )
    return FolderImages(where, chosen)


def _zip(where: Path, _: list[str], choose: Choose) -> Encoded:
    archive = archives.open_zip(where)
    members = {member.filename: member for member in archives.zip_members(archive)}
    names = sorted(members)
    return archives.ZipImages(archive, [names[number] for number in choose(len(names))], members)


def _tar(where: Path, files: list[str], choose: Choose) -> Encoded:
    places: dict[str, archives.Place] = {}
    for file in files or [""]:
        for name, place in archives.tar_members(where / file):
            # Of a member that was appended again the last one counts, as when tar unpacks it.
            places[f"{file}/{name}" if file else name] = place
    names = sorted(places)
    chosen = [names[number] for number in choose(len(names))]
    return archives.TarImages(where, chosen, [places[name] for name in chosen])


def _parquet(where: Path, names: list[str], choose: Choose) -> Encoded:
    files = [where / name for name in names] or [where]
    column = image_column(parquet_images.schema(files[0]), None, files[0])
    counts = [parquet_images.count(file) for file in files]
    for file in files[1:]:
        image_column(parquet_images.schema(file), column, file)
    starts = np.cumsum([0, *counts])
    rows = []
    for number in choose(int(starts[-1])):
        place = int(np.searchsorted(starts, number, side="right")) - 1
        rows.append(Row(files[place], number - int(starts[place])))
    return ParquetImages(where, column, rows)


_ARCHIVES = {".zip": _zip, ".tar": _tar, ".parquet": _parquet}
