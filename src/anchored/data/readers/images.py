"""Unlabelled images: a folder at any depth, zip and tar files, parquet files. All of them, or a number drawn by the seed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from anchored.data import archives, parquet
from anchored.data.encoded import Encoded, FolderImages, is_image
from anchored.data.parquet import ParquetImages, Row
from anchored.data.readers import locate, reading, tables
from anchored.data.readers.parquet import image_column
from anchored.data.readers.reading import Reading
from anchored.errors import InputError

Choose = Callable[[int], list[int]]


def read_images(entry: Mapping[str, Any], root: Path) -> Reading:
    """A bank, in the order of the images' names.

    Raises:
        InputError: nothing is there, there is no image, or fewer than `limit`, a link leaves the folder, an archive is damaged.
    """
    where = root / entry["folder"]
    if not where.exists():
        raise InputError(f"{where} is missing.", "place the images there, or correct `folder` in the configuration.")

    def choose(count: int) -> list[int]:
        return _drawn(count, entry, where)

    images = _format(where)(where, choose)
    return Reading(images, pl.DataFrame(), reading.general_facts(entry, where, where))


def _format(where: Path) -> Callable[[Path, Choose], Encoded]:
    if where.is_file():
        kinds = {".zip": _zip, ".tar": _tar, ".parquet": _parquet}
        if where.suffix.lower() not in kinds:
            raise InputError(f"{where} is neither a folder nor a .zip, .tar or .parquet file.", "unpack compressed tar files.")
        return kinds[where.suffix.lower()]
    if locate.archives(where, ".tar"):
        return _tar
    return _parquet if locate.archives(where, ".parquet") else _folder


def _folder(where: Path, choose: Choose) -> Encoded:
    names = sorted(path.relative_to(where).as_posix() for path in where.rglob("*") if is_image(path.name))
    chosen = [names[number] for number in choose(len(names))]
    outside = [name for name, leaves in zip(chosen, tables.leaving(where, chosen), strict=True) if leaves]
    if outside:
        raise InputError(
            f"{where}: {len(outside)} images are links that leave the folder: {', '.join(outside[:3])}.",
            "place the files themselves there, or set `folder` to where they are.",
        )
    return FolderImages(where, chosen)


def _zip(where: Path, choose: Choose) -> Encoded:
    archive = archives.open_zip(where)
    members = {member.filename: member for member in archives.zip_members(archive)}
    names = sorted(members)
    return archives.ZipImages(archive, [names[number] for number in choose(len(names))], members)


def _tar(where: Path, choose: Choose) -> Encoded:
    places: dict[str, archives.Place] = {}
    for file in locate.archives(where, ".tar"):
        prefix = "" if file == where else f"{file.relative_to(where).as_posix()}/"
        for name, place in archives.tar_members(file):
            places[prefix + name] = place  # of a member that was appended again the last one counts, as tar itself has it
    names = sorted(places)
    chosen = [names[number] for number in choose(len(names))]
    return archives.TarImages(where, chosen, [places[name] for name in chosen])


def _parquet(where: Path, choose: Choose) -> Encoded:
    files = locate.archives(where, ".parquet")
    column = image_column(parquet.schema(files[0]), None, files[0])
    counts = [parquet.count(file) for file in files]
    for file in files[1:]:
        image_column(parquet.schema(file), column, file)
    starts = np.cumsum([0, *counts])
    rows = []
    for number in choose(int(starts[-1])):
        place = int(np.searchsorted(starts, number, side="right")) - 1
        rows.append(Row(files[place], number - int(starts[place])))
    return ParquetImages(where, column, rows)


def _drawn(count: int, entry: Mapping[str, Any], where: Path) -> list[int]:
    """Numbers of the images that take part, in order."""
    limit = entry["limit"]
    if count < (limit or 1):
        raise InputError(f"{where} holds {count} images, {limit or 1} are needed.", "check `folder` and `limit`.")
    if not limit:
        return list(range(count))
    return np.sort(np.random.default_rng([entry["seed"]]).choice(count, size=limit, replace=False)).tolist()
