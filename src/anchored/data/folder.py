"""Images of your own: a folder with a metadata.csv (the on-disk format of Waterbirds), or an unlabelled folder of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from anchored.data.decode import Decoded
from anchored.data.encoded import FolderImages
from anchored.errors import InputError

SPLITS = {"0": "train", "1": "val", "2": "test", "train": "train", "val": "val", "test": "test"}
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


def read_labelled(entry: Mapping[str, Any], root: Path) -> tuple[Decoded, dict[str, NDArray]]:
    """All images and labels of a folder with a metadata.csv.

    Returns:
        images (N, S, S, 3) uint8, not yet decoded, and index columns of length N: split, draw (-1: one draw), y, a, source (line
        of the table).

    Raises:
        InputError: a missing file or column, an unknown split, a label that is no integer from 0, a line twice, a path that
            leaves the folder; gives the count and the first offenders.
    """
    folder = root / entry["folder"]
    table = _metadata(folder / "metadata.csv")
    images = FolderImages(folder, table["img_filename"].to_list())
    return Decoded(images, entry["size"], entry["transform"]), {
        "split": table["split"].to_numpy(),
        "draw": np.full(len(table), -1),
        "y": table["y"].to_numpy(),
        "a": table["a"].to_numpy(),
        "source": np.arange(len(table)),
    }


def read_bank(entry: Mapping[str, Any], root: Path) -> Decoded:
    """Images (N, S, S, 3) of an unlabelled folder: all in the order of their paths, or `limit` of them drawn by the seed.

    Raises:
        InputError: the folder is missing or holds no image, or fewer than `limit`.
    """
    folder = root / entry["folder"]
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    limit = entry["limit"]
    if len(names) < (limit or 1):
        raise InputError(f"{folder} holds {len(names)} images, {limit or 1} are needed.", "check `folder` and `limit`.")
    if limit:
        chosen = np.random.default_rng([entry["seed"]]).choice(len(names), size=limit, replace=False)
        names = [names[number] for number in np.sort(chosen)]
    return Decoded(FolderImages(folder, names), entry["size"], entry["transform"])


def group_names(classes: int, attributes: int) -> dict[str, str]:
    """Names of the groups g = A y + a of A attribute values."""
    return {str(attributes * y + a): f"y={y}, a={a}" for y in range(classes) for a in range(attributes)}


def _metadata(path: Path) -> pl.DataFrame:
    """The checked table: img_filename, split (train, val, test), y, a."""
    try:
        table = pl.read_csv(path, infer_schema=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing.", "place the dataset there, or correct `folder` in the configuration.") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} is no readable CSV: {str(error).splitlines()[0]}") from error
    if "a" not in table.columns and "place" in table.columns:
        table = table.rename({"place": "a"})
    missing = [name for name in ("img_filename", "split", "y", "a") if name not in table.columns]
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}.")
    table = table.select("img_filename", "split", pl.col("y", "a").cast(pl.Int16, strict=False))
    _refuse(path, table, ~pl.col("split").is_in(list(SPLITS)), "a split other than train, val, test (0, 1, 2)")
    negative = pl.any_horizontal(pl.col("y", "a").is_null() | (pl.col("y", "a") < 0))
    _refuse(path, table, negative, "a label that is no integer from 0")
    _refuse(path, table, pl.col("img_filename").is_duplicated(), "an image named twice")
    outside = pl.col("img_filename").str.contains(r"(^/)|(^|/)\.\.(/|$)").fill_null(True)
    _refuse(path, table, outside, "a path that leaves the folder, or none")
    return table.with_columns(pl.col("split").replace_strict(SPLITS))


def _refuse(path: Path, table: pl.DataFrame, bad: pl.Expr, what: str) -> None:
    lines = table.with_row_index("line", offset=2).filter(bad.fill_null(True))
    if len(lines):
        first = ", ".join(f"line {line} ({name})" for line, name in lines.select("line", "img_filename").head(3).iter_rows())
        raise InputError(f"{path}: {len(lines)} lines have {what}: {first}.", "correct the table and run the command again.")
