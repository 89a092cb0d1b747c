"""What tables must say of the images: where they come from, and how they were cut."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anchored.data.readers.locate import SOURCE
from anchored.errors import InputError
from anchored.plan.preprocessing import words

_Text = Annotated[str, Field(min_length=1)]


class Source(BaseModel):
    """`SOURCE.json` in a dataset's folder, written by whoever made it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    """What tells this content from another, as its maker computes it."""


def source(folder: Path, given: Path, published: str = "") -> dict[str, Any]:
    """The entry `source` of a manifest: what SOURCE.json says, or that nothing is known beyond the name.

    Args:
        folder: the folder, or the archive, that was read.
        given: what the configuration names.
        published: the dataset whose published counts were found, and which: "Waterbirds (group counts as published)".

    Raises:
        InputError: SOURCE.json is no JSON, or breaks the format; names the key.
    """
    path = next((place / SOURCE for place in (folder, given) if (place / SOURCE).is_file()), None)
    if path is None:
        kind = "file" if given.is_file() else "folder"
        plain = f"{kind} {given.resolve().name}, as given"
        return {"name": f"{published}, {plain}" if published else plain}
    hint = 'it holds {"schema": 1, "name": ..., "version": ..., "licences": [...], "note": ...}, and may hold "digest".'
    try:
        found = Source.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.", hint) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"{path}: {where}: {first['msg']}.", hint) from error
    entry = found.model_dump(mode="json", exclude={"schema_"}, exclude_none=True)
    return entry | ({"counts": published} if published else {})


def preprocessing(entry: Mapping[str, Any]) -> dict[str, str]:
    """The entry `preprocessing` of a manifest: the convention, and its steps in words."""
    return {"convention": entry["convention"], "steps": words(entry["transform"])}
