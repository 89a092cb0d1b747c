"""A folder with a metadata.csv: a line an image, any labels (reader `folder`), or those of Waterbirds (reader `waterbirds`).

Without a metadata.csv, the reader `folder` takes splits and classes from the names of folders.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from anchored.locate import METADATA, require_folder, table_file, waterbirds_folder
from anchored.readers import published, reading, tables
from anchored.readers.class_folders import class_folders
from anchored.readers.encoded import FolderImages
from anchored.readers.reading import Reading
from anchored.readers.tables import Table

NO_ATTRIBUTE = "-"
_ROLES = ("image", "label", "attribute", "split")
_BIRDS, _PLACES = ("landbird", "waterbird"), ("land", "water")


def read_folder(entry: Mapping[str, Any], root: Path) -> Reading:
    """A folder of one's own.

    Raises:
        InputError: a missing file or column, an unknown split, an empty label, a line twice, a path that leaves the folder, groups
            that train lacks; gives the count and the first offenders.
    """
    folder = root / entry["folder"]
    require_folder(folder)
    frame = None if (folder / METADATA).exists() else class_folders(folder)
    path = table_file(folder) if frame is None else folder
    frame = tables.read_csv(path) if frame is None else frame
    roles = tables.find_columns(frame.columns[1:], configured(entry), path)
    table = Table(path, frame, roles["image"], "image" if path == folder else "line")
    tables.check_paths(table, folder)
    columns, facts = reading.own_labels(entry, table, roles)
    images = FolderImages(folder, frame[roles["image"]].to_list())
    return Reading(images, columns, facts | reading.general_facts(entry, folder, folder))


def read_waterbirds(entry: Mapping[str, Any], root: Path) -> Reading:
    """Waterbirds as released by group DRO, or the WILDS folder, which has the same table.

    Raises:
        InputError: as above, and a label other than 0 and 1, or group counts other than the published ones.
    """
    given = root / entry["folder"]
    folder = waterbirds_folder(given)
    path = folder / METADATA
    frame = tables.read_csv(path)
    names = {"image": "img_filename", "label": "y", "attribute": "place", "split": "split"}
    roles = tables.find_columns(frame.columns[1:], names, path)
    table = Table(path, frame, roles["image"])
    tables.check_paths(table, folder)
    splits = tables.standard_splits(table, "split")
    for column, meaning in (("y", "0 (landbird) and 1 (waterbird)"), ("place", "0 (land) and 1 (water)")):
        table.refuse(~pl.col(column).is_in(["0", "1"]), f"a label other than {meaning} in column {column}")
    columns = reading.with_groups(reading.index_columns(splits, y=frame["y"].cast(pl.Int8), a=frame["place"].cast(pl.Int8)), 2)
    if entry["published"]:
        published.check_groups("Waterbirds", published.WATERBIRDS, reading.histogram(columns))
    facts = {
        "classes": {"0": _BIRDS[0], "1": _BIRDS[1]},
        "attributes": {"0": _PLACES[0], "1": _PLACES[1]},
        "group_names": {str(2 * y + a): f"{bird} on {place}" for y, bird in enumerate(_BIRDS) for a, place in enumerate(_PLACES)},
    }
    reading.require_seen(entry, columns, facts["group_names"], path)
    images = FolderImages(folder, frame["img_filename"].to_list())
    counted = "Waterbirds (group counts as published)" if entry["published"] else ""
    return Reading(images, columns, facts | reading.general_facts(entry, folder, given, counted))


def configured(entry: Mapping[str, Any]) -> dict[str, str | None]:
    """The columns that the configuration names, None where they have to be found; no attribute where there is none."""
    return {role: entry[role] for role in _ROLES if entry[role] != NO_ATTRIBUTE}
