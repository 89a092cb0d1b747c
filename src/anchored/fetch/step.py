"""The command `fetch`: one source of the table into its folder, checked, whole or not at all.

    DIR/TARGET                      what users read, with SOURCE.json in it, or TARGET.source.json beside it
    DIR/.fetched/NAME.json          what came: pins of files that nothing else pins (`pins`)
    DIR/.fetch/                     locks, parts of unfinished downloads, digests, caches of builders; may be removed at any time

DIR is data/ for datasets and weights/ for weights, below the root folder.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from anchored.errors import ConfigError, InputError
from anchored.fetch import builders
from anchored.fetch.digests import measure
from anchored.fetch.download import from_addresses, from_hub
from anchored.fetch.pins import Extent, Fetched, FetchedFile, extent, read_record, write_record
from anchored.fetch.place import check_placed
from anchored.fetch.sources import Source, find_source
from anchored.fetch.unpack import unpack
from anchored.file_digests import FileDigests
from anchored.files import disk_failure, replace_folder
from anchored.locks import exclusive
from anchored.paths import SOURCE_OF_FILE, Paths
from anchored.provenance import read_source, write_source

FOLDERS = {"dataset": "data", "weights": "weights"}

log = logging.getLogger("anchored")


def fetch(name: str, root: Path, *, to: Path | None = None, archive: bool = False, force: bool = False) -> str:
    """Brings a source into `to`, by default data/ or weights/ below `root`; returns what to tell the user.

    Raises:
        ConfigError: there is no such source, or it has no archive.
        InputError: what came, or what a person placed, is not what it should be; or something of another origin is in the way.
        EnvironmentFailure: another process fetches it, the disk is full, or no address can be reached.
    """
    source = find_source(name)
    if archive and not any(file.archive for file in source.files):
        raise ConfigError(f"{name} has no archive address.", "leave --archive out.")
    folder = to or root / FOLDERS[source.kind]
    with exclusive(f"fetch {name}", Paths(folder / ".fetch")):
        try:
            return _fetch(source, folder, archive=archive, force=force)
        except OSError as error:
            raise disk_failure(folder, error) from error


def _fetch(source: Source, folder: Path, *, archive: bool, force: bool) -> str:
    record = read_record(folder, source.name, source.version)
    target = folder / source.target
    if source.by_hand:
        return _placed(source, folder, record, force=force)
    if os.path.lexists(target):
        record = _adopted(source, target, record)
        if not force:
            _require_whole(source, target, record, FileDigests(folder / ".fetch" / "digests" / f"{source.name}.json", folder))
            write_record(folder, record)
            return f"{target} is there already; nothing to do."
    for line in source.licence_lines:
        log.info("licence of %s: %s", source.name, line)
    work = folder / ".fetch" / source.name
    work.mkdir(parents=True, exist_ok=True)
    if source.builder:
        made, files = _built(source, work, cache=folder / ".fetch" / "packages")
    else:
        load = from_hub if source.hub else from_addresses
        before = record
        record, files = load(source, work, folder, before, archive=archive)
        try:
            made = _made(source, work, files)
        except InputError:
            # An archive that is trusted on first use and cannot be unpacked would be asked for again and again.
            shutil.rmtree(work)
            write_record(folder, before)
            raise
    _put_in_place(source, made, target, files)
    write_record(folder, record.model_copy(update={"target": extent(target), "files": files}))
    shutil.rmtree(work)
    note = f"\n  {source.note}" if source.note else ""
    return f"{target}: {source.title}, {extent(target)}.{note}\n  it is read by:\n{_indented(source.reads)}"


def _made(source: Source, work: Path, files: dict[str, FetchedFile]) -> Path:
    """The folder or file to put in place, from what was downloaded to `work`/files."""
    loaded = work / "files"
    if source.kind == "weights":
        return loaded / next(iter(files))
    if not source.unpack:
        _remove_others(loaded, files)
        return loaded
    unpacked = work / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpack(loaded / source.files[0].name, unpacked, source.unpack)
    return unpacked


def _remove_others(folder: Path, files: Mapping[str, FetchedFile]) -> None:
    """What interrupted runs left beside the files, such as parts from other addresses, is no part of a dataset."""
    for path in folder.rglob("*"):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in files:
            path.unlink()


def _built(source: Source, work: Path, *, cache: Path) -> tuple[Path, dict[str, FetchedFile]]:
    shutil.rmtree(work / "built", ignore_errors=True)
    made = work / "built" / source.target
    made.parent.mkdir(parents=True)
    cache.mkdir(exist_ok=True)
    builders.build(source, made, cache)
    if source.kind == "dataset":
        return made, {}
    return made, {made.name: FetchedFile(sha256=measure(made, [])["sha256"], size=made.stat().st_size, origin="built here")}


def _put_in_place(source: Source, made: Path, target: Path, files: dict[str, FetchedFile]) -> None:
    """Gives the finished folder or file its name, provenance first: a kill leaves nothing that says less than it is."""
    # Builders say what they made. A SOURCE.json that came with a download speaks for whoever wrote it.
    if not source.builder or read_source(made) is None:
        _describe(made, source, files)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = made.with_name(made.name + SOURCE_OF_FILE)
    if beside.exists():
        os.replace(beside, target.with_name(target.name + SOURCE_OF_FILE))
    if made.is_dir():
        replace_folder(made, target)
    else:
        os.replace(made, target)


def _adopted(source: Source, target: Path, record: Fetched) -> Fetched:
    """The record of a target that is there: its own, or a new one where the target proves to be this source.

    Raises:
        InputError: something of another origin has the target's name.
    """
    if record.target:
        return record
    provenance = read_source(target)
    pins = {name: file.sha256 for name, file in record.files.items()}
    # a builder has its own way to write the name
    ours = provenance is not None and provenance.version == source.version and (source.builder or provenance.name == source.title)
    if provenance and ours and pins in ({}, provenance.files):
        files = record.files
        if source.kind == "weights" and not files:  # so that the file is compared with what was said of it
            said = (provenance.files or {}).items()
            size = target.stat().st_size
            files = {name: FetchedFile(sha256=sha256, size=size, origin="found in place") for name, sha256 in said}
        return record.model_copy(update={"target": extent(target), "files": files})
    known = [digest for file in source.files for digest in file.digests if digest.whole]
    if source.kind == "weights" and known and target.is_file():
        found = measure(target, [digest.algorithm for digest in known])
        if all(found[digest.algorithm] == digest.digits for digest in known):
            file = FetchedFile(sha256=found["sha256"], size=target.stat().st_size, origin="found in place")
            name = source.files[0].name
            _describe(target, source, {name: file})
            return record.model_copy(update={"target": extent(target), "files": {name: file}})
    raise InputError(
        f"{target} is there, but `anchored fetch` did not make it.",
        "use it as it is, move it away, or give another place with --to; nothing was changed.",
    )


def _require_whole(source: Source, target: Path, record: Fetched, digest: FileDigests) -> None:
    found: Extent = extent(target)
    digests = {file.sha256 for file in record.files.values()}
    changed = source.kind == "weights" and digests and digest(target) not in digests
    digest.save()
    if found != record.target or changed:
        what = "its content changed" if found == record.target else f"{found} instead of {record.target}"
        raise InputError(
            f"{target} is not what was fetched: {what}.", f"run `anchored fetch {source.name} --force` to replace it by a new copy."
        )


def _placed(source: Source, folder: Path, record: Fetched, *, force: bool) -> str:
    target = folder / source.target
    files = check_placed(source, target, record.model_copy(update={"files": {}}) if force else record)
    if files == record.files and read_source(target) is not None:
        return f"{target} is complete and unchanged; nothing to do."
    write_record(folder, record.model_copy(update={"files": files}))
    _describe(target, source, files)
    return f"{target} is complete.\n  it is read by:\n{_indented(source.reads)}"


def _describe(path: Path, source: Source, files: dict[str, FetchedFile]) -> None:
    """Writes the provenance of a folder or file; without `files`, of what lies there."""
    known = {name: file.sha256 for name, file in files.items()}
    write_source(
        path, name=source.title, version=source.version, licences=source.licence_lines, note=source.note, files=known or None
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())
