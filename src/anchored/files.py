"""Whole files or none: everything is written to a temporary name beside its target and renamed.

A reader therefore never sees half a file, and a killed or failed step leaves nothing that looks like a result.
"""

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchored.errors import EnvironmentFailure, InputError

if TYPE_CHECKING:  # engines import this module; polars takes half a second
    import polars as pl

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PERMISSION_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; renames it to `path` on success, removes it on any failure.

    Raises:
        EnvironmentFailure: the disk is full, the file system refuses the size, or the folder is not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise disk_failure(path, error) from error
    finally:
        with suppress(OSError):  # the folder is gone or unreadable: the error above is the one to report
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`, which `replace_folder` may put in its place; else it is gone afterwards.

    Raises:
        EnvironmentFailure: the disk is full or the folder is not writable.
    """
    built = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir(parents=True)
    except OSError as error:
        raise disk_failure(target, error) from error
    try:
        yield built
    finally:
        shutil.rmtree(built, ignore_errors=True)


def replace_folder(built: Path, target: Path) -> None:
    """Gives the folder `built` the name `target`, which keeps its old content if that fails.

    Raises:
        EnvironmentFailure: the folder is not writable.
    """
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        if os.path.lexists(target):
            shutil.rmtree(old, ignore_errors=True)  # of a process that was killed: containers give the same numbers again
            os.rename(target, old)
        try:
            os.rename(built, target)
        except OSError:
            if os.path.lexists(old):
                os.rename(old, target)
            raise
    except OSError as error:
        raise disk_failure(target, error) from error
    if old.is_symlink():
        old.unlink()  # what it led to is somebody else's
    shutil.rmtree(old, ignore_errors=True)


def sweep(target: Path) -> None:
    """Removes what killed processes left beside `target` on their way to it. No other process may be writing it."""
    for ending in ("tmp", "old"):
        for rest in target.parent.glob(f".{target.name}.*.{ending}"):
            if rest.is_dir() and not rest.is_symlink():
                shutil.rmtree(rest, ignore_errors=True)
            else:
                rest.unlink(missing_ok=True)


def disk_failure(path: Path, error: OSError) -> Exception:
    """`error` in the user's words if it is about the disk or permissions, else `error` itself."""
    if error.errno in _DISK_ERRORS:
        return EnvironmentFailure(
            f"cannot write {path}: {os.strerror(error.errno or 0).lower()}.",
            "free space or raise the quota, then run the same command again; nothing was left half-written.",
        )
    if error.errno in _PERMISSION_ERRORS:
        return EnvironmentFailure(f"cannot write {path}: {os.strerror(error.errno or 0).lower()}.", "check its owner.")
    return error


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode())


def json_text(value: Any) -> str:
    """`value` as the project writes JSON: two spaces, keys in the order given, a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON to `path`, whole or not at all."""
    write_text(path, json_text(value))


def write_parquet(path: Path, frame: "pl.DataFrame") -> None:
    """Writes a frame, whole or not at all, with the same bytes for the same content."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    write_bytes(path, buffer.getvalue())


def read_json(path: Path, *, made_by: str) -> Any:
    """Reads a JSON file that the command `made_by` writes.

    Raises:
        InputError: it is missing, or is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing.", f"run `{made_by}`.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.", f"remove it and run `{made_by}`.") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_digest(value: Mapping[str, Any] | list[Any] | str) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
