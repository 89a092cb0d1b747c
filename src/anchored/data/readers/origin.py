"""What tables must say of the images: where they come from, and how they were cut."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anchored.data.readers.locate import METADATA, source_file
from anchored.errors import InputError
from anchored.files import file_digest, value_digest
from anchored.plan.preprocessing import words

_Text = Annotated[str, Field(min_length=1)]


class Source(BaseModel):
    """`SOURCE.json` in a dataset's folder, or FILE.source.json beside an archive, written by whoever made it; may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_: Annotated[Literal[1], Field(alias="schema")]
    """Number of this format."""
    name: _Text
    """The dataset's true name, as tables print it."""
    version: _Text
    """Its version."""
    licences: tuple[_Text, ...]
    """Licences of its parts."""
    note: str = ""
    """What a reader of a table must know."""
    digest: str | None = None
    """What tells this content from another, as its maker computes it; of `files` where it is left out."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of files by their names: those of the folder, or the published ones that it was unpacked from."""


def source(folder: Path, given: Path, published: str = "") -> dict[str, Any]:
    """The entry `source` of a manifest: what SOURCE.json says, or that nothing is known beyond the name.

    Args:
        folder: the folder, or the archive, that was read.
        given: what the configuration names.
        published: the dataset whose published counts were found, and which: "Waterbirds (group counts as published)".

    Raises:
        InputError: SOURCE.json is no JSON, or breaks the format; names the key.
    """
    found = _read(folder) or _read(given)
    if found is None:
        kind = "file" if given.is_file() else "folder"
        plain = f"{kind} {given.resolve().name}, as given"
        return {"name": f"{published}, {plain}" if published else plain}
    entry = found.model_dump(mode="json", exclude={"schema_", "files"}, exclude_none=True)
    if found.files and found.digest is None:
        entry["digest"] = value_digest(found.files)
    return entry | ({"counts": published} if published else {})


def require_listed(folder: Path, images: Mapping[str, str]) -> None:
    """Raises InputError where files are not those that SOURCE.json lists: the name that it gives would be a wrong one.

    Args:
        folder: the folder, or the archive, that was read.
        images: SHA-256 of the images by their names inside of it.
    """
    found = _read(folder)
    if found is None:
        return
    have = dict(images)
    if METADATA in found.files and (folder / METADATA).is_file():
        have[METADATA] = file_digest(folder / METADATA)
    changed = [name for name, digest in have.items() if found.files.get(name, digest) != digest]
    if changed:
        raise InputError(
            f"{folder}: {len(changed)} files are not those that {source_file(folder).name} lists: {', '.join(changed[:3])}.",
            f"get the dataset again; if you changed it, remove {source_file(folder).name}: it is another dataset.",
        )


def _read(place: Path) -> Source | None:
    path = source_file(place)
    if not path.is_file():
        return None
    hint = 'it holds {"schema": 1, "name": ..., "version": ..., "licences": [...], "note": ...}.'
    try:
        return Source.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.", hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"{path}: {where}: {first['msg']}.", hint) from error


def preprocessing(entry: Mapping[str, Any]) -> dict[str, str]:
    """The entry `preprocessing` of a manifest: the convention, and its steps in words."""
    return {"convention": entry["convention"], "steps": words(entry["transform"])}
