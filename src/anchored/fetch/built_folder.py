"""A dataset folder that is built here: whole or absent, with its provenance, its recipe and its credits.

| in the folder | what it says |
| --- | --- |
| SOURCE.json | name, version, licences, note, digest of every file |
| recipe.json | the numbers it was made with, versions of the libraries, packages, digest of the pixels |
| CREDITS.md | every picture with licence and credit |
| licences/ | the packages' own copyright files |
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anchored.errors import ConfigError
from anchored.fetch.pictures import Picture, Pictures
from anchored.files import disk_failure, folder_beside, replace_folder, write_bytes, write_json, write_text
from anchored.paths import SOURCE
from anchored.provenance import write_source


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`, which takes its place on success and is gone on any failure.

    Raises:
        ConfigError: `target` holds something that was not built here.
        EnvironmentFailure: the disk is full or the folder is not writable.
    """
    if target.exists() and not (target / SOURCE).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} holds files of somebody else (no {SOURCE}).", "choose a new or an empty folder.")
    with folder_beside(target) as built:
        try:
            yield built
        except OSError as error:
            raise disk_failure(target, error) from error
        replace_folder(built, target)


def describe(
    folder: Path, pictures: Pictures, used: Sequence[Picture], *, name: str, version: str, note: str, recipe: Mapping[str, Any]
) -> None:
    """Writes everything of a built folder that is not an image or a table of images; SOURCE.json last, it digests the rest."""
    for package, text in pictures.copyright.items():
        write_bytes(folder / "licences" / f"{package}.copyright", text)
    write_text(folder / "CREDITS.md", _credits(name, note, pictures, used))
    packages = {file.name: {"version": file.version, "sha256": file.sha256} for file in pictures.packages}
    write_json(folder / "recipe.json", {**recipe, "packages": packages})
    licences = sorted({f"{file.name}: {file.reviewed.licence}" for file in pictures.packages})
    write_source(folder, name=name, version=version, licences=licences, note=note)


def _credits(name: str, note: str, pictures: Pictures, used: Sequence[Picture]) -> str:
    origin = "Made from pictures of these Debian packages; their copyright files are in `licences/`."
    lines = [f"# {name}", "", note, "", origin, ""]
    for file in pictures.packages:
        lines += [f"## {file.name} {file.version}", "", f"Licence: {file.reviewed.licence}.", "", "| picture | licence | credit |"]
        lines += ["| --- | --- | --- |"]
        lines += [f"| {one.path} | {one.licence} | {one.credit} |" for one in used if one.package == file.name]
        lines += [""]
    return "\n".join(lines)
