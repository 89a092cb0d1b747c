"""What was fetched: `.fetched/NAME.json` below the target folder.

Two uses. What nothing else pinned is trusted on first use: the SHA-256 of this file must come again, from whatever address, until
somebody removes the file on purpose. And a second run finds that there is nothing to do.
"""

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from anchored.errors import InputError
from anchored.files import write_json
from anchored.plan.base import Section


class FetchedFile(Section):
    """A file as it came."""

    sha256: str
    """Its digest."""
    size: int
    """Its bytes."""
    origin: str
    """Its address, without credentials."""
    mtime_ns: int | None = None
    """When a placed file was changed last; an unchanged one is not read again."""


class Extent(Section):
    """What lies in the target: enough to see that something is missing."""

    files: int
    """Number of files."""
    size: int
    """Bytes of all files."""

    def __str__(self) -> str:
        return f"{self.files} files, {self.size} bytes"


class Fetched(Section):
    """The record of one source."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this layout."""
    name: str
    """The source."""
    version: str
    """Its version; another version has other files, and no pins yet."""
    revision: str | None = None
    """The commit of a hub's repository."""
    files: dict[str, FetchedFile] = Field(default_factory=dict)
    """Name -> file."""
    target: Extent | None = None
    """What was put in place; None while nothing is."""


def record_path(folder: Path, name: str) -> Path:
    """Where the record of a source lies."""
    return folder / ".fetched" / f"{name}.json"


def read_record(folder: Path, name: str, version: str) -> Fetched:
    """The record of a source, or an empty one.

    Raises:
        InputError: it is damaged.
    """
    path = record_path(folder, name)
    try:
        record = Fetched.model_validate(json.loads(path.read_text()))
    except FileNotFoundError:
        return Fetched(schema=1, name=name, version=version)
    except (ValidationError, ValueError) as error:
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}.", "remove it; its pins are lost then.") from error
    return record if record.version == version else Fetched(schema=1, name=name, version=version)


def write_record(folder: Path, record: Fetched) -> None:
    """Writes the record of a source."""
    write_json(record_path(folder, record.name), record.model_dump(mode="json", by_alias=True, exclude_none=True))


def extent(path: Path) -> Extent:
    """Number and bytes of the files at `path`, a file or a folder; provenance and hidden files count as well."""
    if not path.is_dir():
        return Extent(files=1, size=path.stat().st_size)
    count = size = 0
    for folder, _, names in os.walk(path):
        count += len(names)
        size += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    return Extent(files=count, size=size)
