"""Images in the cells of parquet files, as mirrors on the Hugging Face hub hold them, read a few rows at a time."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from anchored.errors import InputError

# Rows that are read together, and how many such blocks are kept. A row group is decompressed for every block of it, so small
# blocks cost time and large ones memory: 4 x 64 photographs of 100 KB are 25 MB.
_BLOCK = 64
_KEPT = 4

_UNREADABLE = (pl.exceptions.PolarsError, OSError)


class Row(NamedTuple):
    """A row of a parquet file."""

    file: Path
    number: int


class ParquetImages:
    """The image column of parquet files: bytes, or a struct with the field `bytes`.

    Args:
        where: the file, or the folder of files.
        column: name of the image column.
        rows: (N,) the rows that are the images.
    """

    def __init__(self, where: Path, column: str, rows: Sequence[Row]) -> None:
        self.where = where
        self.names = [row_name(where, row) for row in rows]
        self._rows = rows
        self._bytes = _bytes_of(column, schema(rows[0].file)) if rows else pl.col(column)
        self._blocks: OrderedDict[Row, list[bytes | None]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, number: int) -> bytes:
        """The bytes of one cell."""
        file, row = self._rows[number]
        # Under the lock: threads ask for neighbours, and two of them would read the same block.
        with self._lock:
            data = self._block(Row(file, row // _BLOCK))[row % _BLOCK]
        if data is None:
            raise FileNotFoundError(f"{self.names[number]} has no bytes")
        return data

    def _block(self, block: Row) -> list[bytes | None]:
        if block not in self._blocks:
            rows = pl.scan_parquet(block.file).select(self._bytes.alias("bytes")).slice(block.number * _BLOCK, _BLOCK)
            try:
                self._blocks[block] = rows.collect()["bytes"].to_list()
            except _UNREADABLE as error:
                raise OSError(f"{block.file}: {_first_line(error)}") from error
            if len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(block)
        return self._blocks[block]


def row_name(where: Path, row: Row) -> str:
    """A row as messages and the index name it: FILE#ROW, the file inside of `where`."""
    inside = row.file.relative_to(where).as_posix() if row.file != where else row.file.name
    return f"{inside}#{row.number}"


def schema(file: Path) -> pl.Schema:
    """Columns and types of a parquet file.

    Raises:
        InputError: it is missing or no parquet file.
    """
    try:
        return pl.scan_parquet(file).collect_schema()
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error


def columns(file: Path, names: Sequence[str]) -> pl.DataFrame:
    """Whole columns of a parquet file; none give the rows without columns.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return pl.scan_parquet(file).select(names).collect()
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error


def count(file: Path) -> int:
    """Number of rows of a parquet file; raises InputError where it cannot be read."""
    try:
        return int(pl.scan_parquet(file).select(pl.len()).collect().item())
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error


def image_columns(found: pl.Schema) -> list[str]:
    """Columns that can hold encoded images: bytes, or structs with the field `bytes`."""
    return [name for name, kind in found.items() if _holds_bytes(kind)]


def _holds_bytes(kind: pl.DataType) -> bool:
    if isinstance(kind, pl.Struct):
        return any(field.name == "bytes" and field.dtype == pl.Binary for field in kind.fields)
    return kind == pl.Binary


def _bytes_of(column: str, found: pl.Schema) -> pl.Expr:
    return pl.col(column).struct.field("bytes") if isinstance(found[column], pl.Struct) else pl.col(column)


def _unreadable(file: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{file} is missing.", "place the file there, or correct `folder` in the configuration.")
    return InputError(
        f"{file} is no readable parquet file: {_first_line(error)}.", "download it again; it may have been cut short."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
