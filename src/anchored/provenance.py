"""Where data came from: `SOURCE.json` in a folder, `FILE.source.json` beside a file. Whoever made them writes it; tables print it.

    {"schema": 1, "name": ..., "version": ..., "licences": [...], "note": ..., "files": {name: sha256}}

`files` names the files as they were published (an archive by its own name, though only its content is kept) or, where the data was
built here, the files of the folder.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anchored.errors import InputError
from anchored.files import file_digest, write_json
from anchored.paths import SOURCE, source_file

_Text = Annotated[str, Field(min_length=1)]
_HINT = 'it holds {"schema": 1, "name": ..., "version": ..., "licences": [...], "note": ...}; correct it or fetch the source again.'


class Provenance(BaseModel):
    """What a folder or file is. Its maker may write further keys."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this layout."""
    name: _Text
    """Name of the source, as tables print it."""
    version: _Text
    """Version of the source."""
    licences: tuple[_Text, ...]
    """SPDX identifiers, or the publisher's own words, each with an address where there is one."""
    note: str = ""
    """What a reader of a table must know of this source; may be empty."""
    files: dict[str, str] = Field(default_factory=dict)
    """Name -> SHA-256."""


def write_source(
    path: Path, *, name: str, version: str, licences: Sequence[str], note: str = "", files: Mapping[str, str] | None = None
) -> Path:
    """Writes the provenance of the folder or file `path`, which must exist; returns where.

    `files` maps names to SHA-256. Left out: every file of the folder (names that begin with a dot and earlier provenance apart),
    or the file itself.
    """
    if files is None:
        files = _digests(path)
    record = Provenance(schema=1, name=name, version=version, licences=tuple(licences), note=note, files=dict(files))
    target = source_file(path)
    write_json(target, record.model_dump(mode="json", by_alias=True))
    return target


def read_source(path: Path) -> Provenance | None:
    """The provenance of a folder or file; None where it has none.

    Raises:
        InputError: there is one, but it is damaged or of another layout.
    """
    file = source_file(path)
    try:
        return Provenance.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{file}: {'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}.", _HINT) from error
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}.", _HINT) from error


def _digests(path: Path) -> dict[str, str]:
    if not path.is_dir():
        return {path.name: file_digest(path)}
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return {name: file_digest(path / name) for name in names if name != SOURCE and not _hidden(name)}


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
