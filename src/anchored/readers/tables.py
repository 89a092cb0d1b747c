"""Tables of images as users have them, checked: every error names the file, the count and the first offenders."""

import csv
import difflib
import io
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from anchored.errors import InputError

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    "train": "train", "training": "train", "0": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "1": "val",
    "test": "test", "testing": "test", "2": "test",
}  # fmt: skip
_USUAL = {
    "image": ("img_filename", "filename", "file_name", "image", "img", "image_path", "path", "file", "image_id"),
    "label": ("y", "label", "labels", "class", "target"),
    "attribute": ("a", "place", "attribute", "background", "environment", "env", "domain"),
    "split": ("split", "partition", "fold", "set"),
}
LINE = "#line"
"""The column that readers add: the number of the line in the file."""

_CORRECT = "correct the table and run the command again."
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_EMPTY = ("", "nan", "NaN")


@dataclass(frozen=True)
class Table:
    """A table of text, an image a line.

    Args:
        where: the file or folder that it comes from.
        frame: the column LINE with the numbers of the lines, and its own columns, all text, null where a cell is empty.
        names: the column of the image's name.
        word: what a line is called.
    """

    where: Path
    frame: pl.DataFrame
    names: str
    word: str = "line"

    def refuse(self, bad: pl.Expr | pl.Series, what: str) -> None:
        """Raises InputError with count and first offenders where `bad` holds or is unknown."""
        lines = self.frame.filter(bad.fill_null(True))
        if len(lines):
            first = ", ".join(_offender(self.word, *row) for row in lines.select(LINE, self.names).head(3).iter_rows())
            raise InputError(f"{self.where}: {len(lines)} {self.word}s have {what}: {first}.", _CORRECT)


def read_csv(path: Path) -> pl.DataFrame:
    """A CSV file as text: cells stripped of spaces, null where empty, the column LINE; empty lines are left out.

    Raises:
        InputError: it is missing, no UTF-8, no CSV, has a column twice, or no lines.
    """
    return parse_csv(decoded(read_file(path), path), path)


def read_file(path: Path) -> bytes:
    """The bytes of a list.

    Raises:
        InputError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing.", "place the dataset there, or correct `folder` in the configuration.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.", "check the file.") from error


def decoded(data: bytes, path: Path) -> str:
    """The text of a list; raises InputError where it is no UTF-8."""
    hint = "save it as UTF-8 (a spreadsheet calls it `CSV UTF-8`)."
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} is not UTF-8 text: byte {data[error.start]:#04x} in line {line}.", hint) from error
    if "\0" in text:
        raise InputError(f"{path} is not UTF-8 text: it holds zero bytes, as UTF-16 does.", hint)
    return text


def parse_csv(text: str, path: Path) -> pl.DataFrame:
    """As `read_csv`, of a text that comes from `path`."""
    try:
        header = [name.strip() for name in next(csv.reader(io.StringIO(text)), [])]
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise InputError(f"{path} has the column {', '.join(twice)!r} twice.", _CORRECT)
        table = pl.read_csv(io.BytesIO(text.encode()), infer_schema=False).rename(str.strip)
    except (pl.exceptions.PolarsError, csv.Error) as error:
        raise InputError(f"{path} is no readable CSV: {str(error).splitlines()[0].rstrip('.')}.", _CORRECT) from error
    numbered = tidy(table).with_row_index(LINE, offset=2).filter(~pl.all_horizontal(pl.exclude(LINE).is_null()))
    if numbered.is_empty():
        raise InputError(f"{path} has no lines.", _CORRECT)
    return numbered


def tidy(table: pl.DataFrame) -> pl.DataFrame:
    """All columns as text without spaces around it, null where there is none."""
    text = pl.all().cast(pl.String).str.strip_chars()
    return table.select(text).with_columns(pl.when(pl.all().is_in(_EMPTY)).then(None).otherwise(pl.all()).name.keep())


def find_columns(columns: Sequence[str], wanted: Mapping[str, str | None], where: Path) -> dict[str, str]:
    """The column of each role: the one that the configuration names, or the first that has a usual name.

    Args:
        columns: those of the table.
        wanted: for each role (image, label, attribute, split) the configured name, None to search.
        where: the table, for messages.

    Raises:
        InputError: columns are missing; lists them, and what the table has.
    """
    found: dict[str, str] = {}
    missing = []
    lower = {name.lower(): name for name in reversed(columns)}
    for role, name in wanted.items():
        usual = next((lower[name] for name in _USUAL[role] if name in lower), None)
        if name is not None and name not in columns:
            near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
            missing.append(f"the column '{name}' ({role}{f'; did you mean {near[0]!r}?' if near else ''})")
        elif name is None and usual is None:
            missing.append(f"a column for the {role} ({', '.join(_USUAL[role])})")
        else:
            found[role] = name or str(usual)
    if missing:
        hint = "rename the columns, or name them with `image`, `label`, `attribute` and `split` in the configuration"
        hint += ", or set `attribute: \"-\"` where there is none." if "attribute" in wanted and "attribute" not in found else "."
        raise InputError(f"{where} lacks {' and '.join(missing)}; it has {', '.join(columns)}.", hint)
    return found


def has_usual(columns: Sequence[str], role: str) -> bool:
    """Whether a column has one of the usual names of a role."""
    return any(name.lower() in _USUAL[role] for name in columns)


def standard_splits(table: Table, column: str) -> pl.Series:
    """The split of every line as train, val or test; raises InputError for others, and where one of them has no image."""
    plain = table.frame[column].str.to_lowercase().str.replace(r"^([012])\.0*$", "$1")
    table.refuse(~plain.is_in(list(_SPLIT_NAMES)), "a split other than train, val, test (0, 1, 2)")
    splits = plain.replace_strict(_SPLIT_NAMES, return_dtype=pl.String)
    absent = [name for name in SPLITS if not (splits == name).any()]
    if absent:
        counts = ", ".join(f"{name} {(splits == name).sum()}" for name in SPLITS)
        raise InputError(
            f"{table.where} has no images of split {', '.join(absent)} ({counts}).",
            "training, selection and test need three splits: divide the training images, never the test images.",
        )
    return splits


def split_of_path(path: str) -> str | None:
    """The split that a path names, in its last part that names one: `data/validation-00000-of-00001.parquet` is val."""
    for part in reversed(path.split("/")):
        word = re.match(r"[A-Za-z]+", part)
        if word and split_named(word[0]):
            return split_named(word[0])
    return None


def split_named(word: str) -> str | None:
    """The split that goes by this name (`Valid` is val), None where none does."""
    return _SPLIT_NAMES.get(word.lower())


def number_labels(table: Table, column: str, what: str) -> tuple[pl.Series, list[str]]:
    """Labels of any text as numbers from 0, and the labels in their order: numbers by value, then words by letters.

    Raises:
        InputError: labels are empty.
    """
    table.refuse(pl.col(column).is_null(), f"no {what} (column {column})")
    plain = table.frame[column].map_elements(_plain, return_dtype=pl.String)
    labels = sorted(plain.unique().to_list(), key=_order)
    numbers = {label: number for number, label in enumerate(labels)}
    return plain.replace_strict(numbers, return_dtype=pl.Int32), labels


def check_paths(table: Table, folder: Path) -> None:
    """Refuses an image named twice and a path that leaves the folder, also through a link."""
    column = pl.col(table.names)
    outside = column.str.contains(r"(^/)|(^|/)\.\.(/|$)|\\").fill_null(True)
    table.refuse(outside, "a path that leaves the folder, or none")
    plain = table.frame[table.names].map_elements(posixpath.normpath, return_dtype=pl.String)
    table.refuse(plain.is_duplicated(), "an image named twice")
    table.refuse(pl.Series(leaving(folder, table.frame[table.names].to_list()), dtype=pl.Boolean),
                 "a path that leaves the folder through a link")  # fmt: skip


def leaving(folder: Path, names: Sequence[str]) -> list[bool]:
    """Which of the files lie, all links followed, outside of the folder."""
    home = os.path.realpath(folder)
    inside: dict[str, bool] = {}

    def within(path: str) -> bool:
        return path == home or path.startswith(home + os.sep)

    found = []
    for name in names:
        path = os.path.join(home, name)
        parent = os.path.dirname(path)
        if parent not in inside:  # resolving each of 200,000 paths takes seconds; their folders are few
            inside[parent] = within(os.path.realpath(parent))
        found.append(not inside[parent] or (os.path.islink(path) and not within(os.path.realpath(path))))
    return found


def _order(label: str) -> tuple[int, float, str]:
    # The text decides between 1.5 and 1.50: the order of unique values changes from run to run.
    return (0, float(label), label) if is_number(label) else (1, 0.0, label)


def is_number(label: str) -> bool:
    """Whether a label is a number."""
    return _NUMBER.fullmatch(label) is not None


def _plain(label: str) -> str:
    """1.0, 01 and +1 are the label 1: tables that went through a spreadsheet or pandas have all of them."""
    return str(int(float(label))) if _WHOLE.fullmatch(label) and len(label) < 16 else label


def _offender(word: str, number: int, name: str | None) -> str:
    return f"{word} {number}" + (f" ({name})" if name is not None else "")
