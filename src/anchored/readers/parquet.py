"""Labelled images in parquet files, as mirrors on the Hugging Face hub hold them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from anchored.errors import InputError
from anchored.locate import archives
from anchored.readers import parquet_images, reading, tables
from anchored.readers.folder import configured
from anchored.readers.parquet_images import ParquetImages, Row
from anchored.readers.reading import Reading
from anchored.readers.tables import Table

_NAME, _FILE_SPLIT = "#name", "#split"
# Kinds of columns that can be labels.
_LABELS = (pl.String, pl.Boolean, pl.Categorical, pl.Enum)


def read_parquet(entry: Mapping[str, Any], root: Path) -> Reading:
    """Labelled images of one file, or of all files of a folder.

    Raises:
        InputError: no file, a missing column, an unknown split, an empty label, groups that train lacks; gives the count and the
            first offenders.
    """
    where = root / entry["folder"]
    files = parquet_files(where)
    schema = parquet_images.schema(files[0])
    wanted = configured(entry) | {"image": image_column(schema, entry["image"], files[0])}
    splits_by_file = entry["split"] is None and not tables.has_usual(schema.names(), "split")
    if splits_by_file:
        del wanted["split"]
    roles = tables.find_columns(schema.names(), wanted, files[0])
    labels = list(dict.fromkeys(roles[role] for role in ("label", "attribute", "split") if role in roles))
    parts, rows = [], []
    for file in files:
        _require_columns(file, roles["image"], labels)
        part = parquet_images.columns(file, labels)
        parts.append(tables.tidy(part).with_columns(pl.lit(_split(file, where) if splits_by_file else None).alias(_FILE_SPLIT)))
        rows += [Row(file, number) for number in range(len(part))]
    images = ParquetImages(where, roles["image"], rows)
    frame = pl.concat(parts).with_columns(pl.Series(_NAME, images.names)).with_row_index(tables.LINE)
    table = Table(where, frame, _NAME, word="row")
    known = _hub_names(files[0], roles)
    columns, facts = reading.own_labels(entry, table, roles | ({"split": _FILE_SPLIT} if splits_by_file else {}), known)
    return Reading(images, columns, facts | reading.general_facts(entry, where, where))


def parquet_files(where: Path) -> list[Path]:
    """The parquet files that `where` stands for; raises InputError where there is none."""
    if not where.exists():
        raise InputError(f"{where} is missing.", "place the dataset there, or correct `folder` in the configuration.")
    files = archives(where, ".parquet")
    if not files:
        raise InputError(f"{where} holds no .parquet file.", "`folder` is one file, or the folder of all of them.")
    return files


def image_column(schema: pl.Schema, wanted: str | None, file: Path) -> str:
    """The column of encoded images: `wanted`, or the only one that can be.

    Raises:
        InputError: there is none, or several, or `wanted` holds no bytes.
    """
    able = parquet_images.image_columns(schema)
    if wanted in able:
        return str(wanted)
    if wanted is not None or not able:
        what = f"column '{wanted}' holds" if wanted else "the columns hold"
        raise InputError(
            f"{file}: {what} no encoded images (bytes, or structs of them); it has {', '.join(schema.names())}.",
            "name the column with `image`.",
        )
    if len(able) > 1:
        raise InputError(f"{file}: {len(able)} columns hold bytes: {', '.join(able)}.", "name that of the images with `image`.")
    return able[0]


def _split(file: Path, where: Path) -> str:
    inside = file.relative_to(where).as_posix() if file != where else file.name
    split = tables.split_of_path(inside)
    if split is None:
        raise InputError(
            f"{file}: neither a column nor its name tells the split.",
            "files are called train-..., validation-..., test-... or lie in folders of these names; or name a column with `split`.",
        )
    return split


def _require_columns(file: Path, image: str, labels: list[str]) -> None:
    schema = parquet_images.schema(file)
    missing = [name for name in (image, *labels) if name not in schema]
    if missing:
        raise InputError(f"{file} lacks the columns {', '.join(missing)}, which other files have.", "get it again.")
    image_column(schema, image, file)
    strange = [name for name in labels if not (schema[name] in _LABELS or schema[name].is_numeric())]
    if strange:
        kinds = ", ".join(f"{name} ({schema[name]})" for name in strange)
        raise InputError(f"{file}: columns hold no labels: {kinds}.", "name others with `label`, `attribute` and `split`.")


def _hub_names(file: Path, roles: Mapping[str, str]) -> dict[str, list[str]]:
    """Names that the hub's library keeps for numbered labels, by role; it writes them into the file as JSON."""
    found = {}
    try:
        features = json.loads(pl.read_parquet_metadata(file)["huggingface"])["info"]["features"]
        for role in ("label", "attribute"):
            if role in roles and features[roles[role]].get("names"):
                found[role] = [str(name) for name in features[roles[role]]["names"]]
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}
    return found
