"""CelebA: attribute list and list of splits as csv or txt, images in a folder or a zip file, or all of it in one zip file."""

import difflib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from anchored.errors import InputError
from anchored.locate import celeba_files, celeba_members, require_folder
from anchored.readers import published, reading, tables
from anchored.readers.archives import ZipImages, open_zip, read_member, zip_members
from anchored.readers.encoded import Encoded, FolderImages
from anchored.readers.reading import Reading
from anchored.readers.tables import Table

IMAGE = "image_id"
ALL = "all"
_PARTITION = "partition"


class _Parts(NamedTuple):
    attributes: Table
    partition: Table
    folder: Path
    images: Path | zipfile.ZipFile


def read_celeba(entry: Mapping[str, Any], root: Path) -> Reading:
    """Images with a target and an attribute, or with all attributes as targets.

    The two lists are joined by the name of the image, never by position.

    Raises:
        InputError: a missing file or attribute, a value other than -1 and 1, an image twice, lists of different images, an unknown
            split, group counts other than the published ones; gives the count and the first offenders.
    """
    given = root / entry["folder"]
    parts = _open(given)
    table = _joined(parts.attributes, parts.partition)
    names = [name for name in parts.attributes.frame.columns if name not in (tables.LINE, IMAGE)]
    chosen = names if entry["target"] == ALL else [entry["target"]]
    for name in (*chosen, entry["attribute"]):
        _require(name, names, table.where)
    splits = tables.standard_splits(table, _PARTITION)
    values = _binary(table, list(dict.fromkeys([*chosen, entry["attribute"]])))
    a = values[entry["attribute"]]
    facts: dict[str, Any]
    if entry["target"] == ALL:
        labels = {f"y_{name}": values[name] for name in names}
        columns = reading.index_columns(splits, a=a, **labels)
        facts = {"task": "multi-label", "targets": list(labels)}
        counts = reading.histogram(columns.with_columns(group=pl.col("a")))
    else:
        columns = reading.with_groups(reading.index_columns(splits, y=values[chosen[0]], a=a), 2)
        classes, attributes = (_either(name) for name in (chosen[0], entry["attribute"]))
        facts = {"classes": dict(zip("01", classes, strict=True)), "group_names": reading.group_names(classes, attributes)}
        counts = reading.histogram(columns)
    facts["attributes"] = dict(zip("01", _either(entry["attribute"]), strict=True))
    counted = ""
    if entry["published"]:
        whole = (entry["target"], entry["attribute"]) == ("Blond_Hair", "Male")
        (published.check_groups if whole else published.check_totals)("CelebA", published.BLOND_MALE, counts)
        counted = f"CelebA ({'group counts' if whole else 'numbers of images'} as published)"
    if "group_names" in facts:
        reading.require_seen(entry, columns, facts["group_names"], table.where)
    images = _images(parts, table)
    return Reading(images, columns, facts | reading.general_facts(entry, parts.folder, given, counted))


def _open(given: Path) -> _Parts:
    if given.is_file():
        archive = open_zip(given)
        members = celeba_members(archive.namelist(), given)
        texts = [tables.decoded(_member(archive, name), given / name) for name in members]
        lists = [_parse(text, given / name) for text, name in zip(texts, members, strict=True)]
        return _Parts(lists[0], lists[1], given, archive)
    require_folder(given)
    files = celeba_files(given)
    lists = [_parse(tables.decoded(tables.read_file(path), path), path) for path in (files.attributes, files.partition)]
    return _Parts(lists[0], lists[1], given, open_zip(files.images) if files.images.is_file() else files.images)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return read_member(archive, archive.getinfo(name))
    except OSError as error:
        raise InputError(f"{archive.filename}: {error}.", "download the file again.") from error


def _parse(text: str, path: Path) -> Table:
    """A list of either flavour: csv with a header; txt with the number of images and the names first, or with no header."""
    if path.suffix == ".csv":
        frame = tables.parse_csv(text, path)
        missing = [name for name in (IMAGE, *([_PARTITION] if "partition" in path.name else [])) if name not in frame.columns]
        if missing:
            found = ", ".join(frame.columns[1:6])
            raise InputError(f"{path} lacks the columns {', '.join(missing)}; it has {found}, ...", "get the list again.")
        return Table(path, frame, IMAGE)
    lines = [line.split() for line in text.splitlines()]
    header, body, first = _headed(lines, path)
    wrong = [(first + number, len(cells)) for number, cells in enumerate(body) if len(cells) != len(header)]
    if wrong:
        shown = ", ".join(f"line {number} ({count})" for number, count in wrong[:3])
        raise InputError(f"{path}: {len(wrong)} lines have not {len(header)} words: {shown}.", "get the list again.")
    frame = pl.DataFrame(body, schema=dict.fromkeys(header, pl.String), orient="row")
    return Table(path, tables.tidy(frame).with_row_index(tables.LINE, offset=first), IMAGE)


def _headed(lines: list[list[str]], path: Path) -> tuple[list[str], list[list[str]], int]:
    """Names of the columns, the lines below the header, and the number of the first of them."""
    if "partition" in path.name:
        header, body, first = [IMAGE, _PARTITION], lines, 1
    else:
        if len(lines) < 2 or len(lines[0]) != 1 or not lines[0][0].isdecimal():
            raise InputError(f"{path}: the first line is not the number of images.", "get the list again.")
        header, body, first = [IMAGE, *lines[1]], lines[2:], 3
    while body and not body[-1]:
        body = body[:-1]
    if not body:
        raise InputError(f"{path} has no lines.", "get the list again.")
    if "partition" not in path.name and len(body) != int(lines[0][0]):
        raise InputError(f"{path} announces {lines[0][0]} images and lists {len(body)}.", "get the list again.")
    if len(set(header)) < len(header):
        raise InputError(f"{path} names a column twice.", "get the list again.")
    return header, body, first


def _joined(attributes: Table, partition: Table) -> Table:
    """The attribute list with the column `partition`, in the order of the attribute list."""
    for table in (attributes, partition):
        table.refuse(pl.col(IMAGE).is_null(), "no image")
        table.refuse(pl.col(IMAGE).is_duplicated(), "an image named twice")
    sides = attributes.frame[IMAGE], partition.frame[IMAGE]
    only = [one.filter(~one.is_in(other.implode())) for one, other in (sides, sides[::-1])]
    if len(only[0]) or len(only[1]):
        shown = [f"{len(side)} only in {table.where.name}" + (f" (first {side[0]})" if len(side) else "")
                 for side, table in zip(only, (attributes, partition), strict=True)]  # fmt: skip
        raise InputError(
            f"{attributes.where} and {partition.where.name} list different images: {len(sides[0])} and {len(sides[1])}, "
            f"{', '.join(shown)}.",
            "get both lists from one source.",
        )
    right = partition.frame.select(IMAGE, pl.col(_PARTITION).alias("split of the image"))
    joined = attributes.frame.join(right, on=IMAGE, how="left", maintain_order="left", validate="1:1")
    return Table(attributes.where, joined.rename({"split of the image": _PARTITION}), IMAGE)


def _require(name: str, names: list[str], where: Path) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        advice = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(names)}."
        raise InputError(f"{where} has no attribute '{name}'.", advice)


def _binary(table: Table, names: list[str]) -> pl.DataFrame:
    """The attributes as 0 and 1."""
    for name in names:
        table.refuse(~pl.col(name).is_in(["-1", "1"]), f"a value other than -1 and 1 for {name}")
    return table.frame.select((pl.col(name) == "1").cast(pl.Int8) for name in names)


def _either(name: str) -> tuple[str, str]:
    return f"not {name}", name


def _images(parts: _Parts, table: Table) -> Encoded:
    names = table.frame[IMAGE].to_list()
    if isinstance(parts.images, Path):
        tables.check_paths(table, parts.images)
        outside = tables.leaving(parts.folder, [parts.images.relative_to(parts.folder).as_posix()])
        if any(outside):
            raise InputError(f"{parts.images} is a link that leaves {parts.folder}.", "set `folder` to where lists and images lie.")
        return FolderImages(parts.images, names)
    members: dict[str, zipfile.ZipInfo] = {}
    for member in zip_members(parts.images):
        name = member.filename.rsplit("/", 1)[-1]
        if name in members:
            raise InputError(
                f"{parts.images.filename} holds {name} twice: {members[name].filename} and {member.filename}.",
                "it has to hold one version of the images.",
            )
        members[name] = member
    return ZipImages(parts.images, names, members)
