"""What tables must say of the images: where they come from, and how they were cut."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchored.data.provenance import read_source
from anchored.plan.preprocessing import words


def source(folder: Path, given: Path, published: str = "") -> dict[str, Any]:
    """The entry `source` of a manifest: what SOURCE.json says, or that nothing is known beyond the name.

    Args:
        folder: the folder, or the archive, that was read.
        given: what the configuration names.
        published: the dataset whose published counts were found, and which: "Waterbirds (group counts as published)".

    Raises:
        InputError: SOURCE.json is no JSON, or breaks the format; names the key.
    """
    found = next(filter(None, map(read_source, (place for place in (folder, given) if place.is_dir()))), None)
    if found is None:
        kind = "file" if given.is_file() else "folder"
        plain = f"{kind} {given.resolve().name}, as given"
        return {"name": f"{published}, {plain}" if published else plain}
    # The files are the index's business: one digest a line.
    entry = found.model_dump(mode="json", exclude={"schema_version", "files"})
    return entry | ({"counts": published} if published else {})


def preprocessing(entry: Mapping[str, Any]) -> dict[str, str]:
    """The entry `preprocessing` of a manifest: the convention, and its steps in words."""
    return {"convention": entry["convention"], "steps": words(entry["transform"])}
