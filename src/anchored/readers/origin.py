"""What tables must say of the images: where they come from, and how they were cut."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anchored.errors import InputError
from anchored.files import file_digest, value_digest
from anchored.locate import METADATA
from anchored.paths import source_file
from anchored.plan.preprocessing import words
from anchored.provenance import read_source


def source(folder: Path, given: Path, published: str = "") -> dict[str, Any]:
    """The entry `source` of a manifest: what SOURCE.json says, or that nothing is known beyond the name.

    Args:
        folder: the folder, or the archive, that was read.
        given: what the configuration names.
        published: the dataset whose published counts were found, and which: "Waterbirds (group counts as published)".

    Raises:
        InputError: SOURCE.json is no JSON, or breaks the format; names the key.
    """
    found = read_source(folder) or read_source(given)
    if found is None:
        kind = "file" if given.is_file() else "folder"
        plain = f"{kind} {given.resolve().name}, as given"
        return {"name": f"{published}, {plain}" if published else plain}
    entry = found.model_dump(mode="json", exclude={"schema_version", "files"})
    if found.files:
        entry["digest"] = value_digest(found.files)
    return entry | ({"counts": published} if published else {})


def require_listed(folder: Path, images: Mapping[str, str]) -> None:
    """Raises InputError where files are not those that SOURCE.json lists: the name that it gives would be a wrong one.

    Args:
        folder: the folder, or the archive, that was read.
        images: SHA-256 of the images by their names inside of it.
    """
    found = read_source(folder)
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


def preprocessing(entry: Mapping[str, Any]) -> dict[str, str]:
    """The entry `preprocessing` of a manifest: the convention, and its steps in words."""
    return {"convention": entry["convention"], "steps": words(entry["transform"])}
