"""SHA-256 of files, each read once: a file beside the locks remembers those of large files, and which file it was.

A file of the same size, inode, time of change and time of change of its status (which no program can set back) has the same bytes.
It is small and belongs to the machine: without it everything is read again. `anchored prepare NAME --check` never asks it.
"""

import json
from pathlib import Path
from typing import Any

from anchored.files import file_digest, write_json

LARGE = 1 << 26
"""Bytes from which a digest is remembered. To read them takes longer than a tick of the clock that stamps files, so that a change
after the reading has another stamp; smaller files are read every time."""

Stamp = list[int]


class FileDigests:
    """Digests of files, remembered in `file`.

    Args:
        file: what is remembered; need not exist.
        root: the folder that names in it are relative to.
    """

    def __init__(self, file: Path, root: Path) -> None:
        self._file, self._root = file, root
        self._known = self._saved = _read(file)

    def __call__(self, path: Path) -> str:
        """SHA-256 of a file, in hexadecimal."""
        stamp, name = _stamp(path), self._name(path)
        known = self._known.get(name, {})
        if known.get("stamp") == stamp:
            return str(known["sha256"])
        digest = file_digest(path)
        if stamp[0] >= LARGE and stamp == _stamp(path):
            self._known = {**self._known, name: {"stamp": stamp, "sha256": digest}}
        return digest

    def save(self) -> None:
        """Writes what is known, where that is more than before."""
        if self._known != self._saved:
            write_json(self._file, self._known)
            self._saved = self._known

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else str(path)


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if isinstance(found, dict) and all(isinstance(each, dict) and each.keys() == {"stamp", "sha256"} for each in found.values()):
        return found
    return {}
