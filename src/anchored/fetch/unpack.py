"""Archives unpacked as if an enemy had packed them: plain files and folders below one folder, within bounds, or nothing at all.

Nothing of the archive but names and bytes is used: no owner, mode, time or link. tarfile's own filters are not relied on, they came
in the middle of Python 3.11.
"""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from anchored.amounts import amount
from anchored.errors import InputError
from anchored.fetch.sources import Unpack
from anchored.files import disk_failure
from anchored.progress import progress

_CHUNK = 1 << 20
_BLOCK = 512
# A member's own block, its padding, and headers with a long name.
_HEADERS = 4096


class Member(NamedTuple):
    """An entry of an archive; `stream` is None for a folder, `at` counts the bytes of the archive before it."""

    name: str
    size: int
    stream: IO[bytes] | None
    at: int


def unpack(archive: Path, target: Path, rules: Unpack) -> int:
    """Unpacks `archive` into the new folder `target`; returns the number of files.

    Raises:
        InputError: the archive is truncated or damaged, names something outside of the folder, holds a link or a device, a name
            twice, or more than `rules` allow; names the entry. Nothing is left of `target`.
        EnvironmentFailure: the disk is full. Nothing is left of `target`.
    """
    target.mkdir(parents=True)
    try:
        return _unpack(archive, target, rules)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, NotImplementedError) as error:
        _remove(target)
        if isinstance(error, OSError) and error.errno is not None:
            raise disk_failure(target, error) from error
        # gzip and bz2 tell damage by an OSError without a number.
        raise InputError(f"{archive} is truncated or damaged: {str(error) or type(error).__name__}.", "fetch it again.") from error
    except BaseException:
        _remove(target)
        raise


def _unpack(archive: Path, target: Path, rules: Unpack) -> int:
    opened = _zip_members if rules.format == "zip" else _tar_members
    entries = files = total = outside = shown = 0
    size = archive.stat().st_size
    with opened(archive, rules) as members, progress(f"unpack {archive.name}, MiB", size // _CHUNK) as advance:
        for member in members:
            if (at := member.at // _CHUNK) > shown:
                advance(at - shown)
                shown = at
            entries += 1
            if entries > rules.members:
                raise InputError(f"{archive} holds more than {rules.members} entries.", _BOMB)
            total += member.size
            if total > rules.at_most:
                raise InputError(f"{archive} unpacks to more than {amount(rules.at_most)}, at '{member.name}'.", _BOMB)
            path = _inside(archive, member.name)
            if rules.root is not None:
                if not path.is_relative_to(rules.root):
                    outside += 1
                    continue
                path = path.relative_to(rules.root)
            place = target / path
            try:
                if member.stream is None:
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                _copy(archive, member, place)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise InputError(f"{archive} names '{member.name}' twice.", _ODD) from error
            files += 1
    if not files:
        where = f" below '{rules.root}'" if rules.root else ""
        raise InputError(f"{archive} holds no file{where}; {outside} entries lie elsewhere.", _ODD)
    return files


_BOMB = "the archive is not what the table describes; nothing was unpacked."
_ODD = "no honest archive does this; nothing was unpacked."


def _inside(archive: Path, name: str) -> PurePosixPath:
    """The path of an entry, relative and without `..`."""
    path = PurePosixPath(name)
    odd = any(ord(character) < 32 or character in "\\\x7f" for character in name)
    drive = bool(path.parts) and path.parts[0].endswith(":")
    if path.is_absolute() or ".." in path.parts or odd or drive:
        raise InputError(f"{archive} holds '{name!a}', a path that leaves its folder or cannot be written.", _ODD)
    return path


def _copy(archive: Path, member: Member, place: Path) -> None:
    """Writes a file that does not exist yet, with the mode of any new file, and not one byte more than announced."""
    assert member.stream is not None
    left = member.size
    with place.open("xb") as out:
        while block := member.stream.read(min(_CHUNK, left + 1)):
            left -= len(block)
            if left < 0:
                raise InputError(f"{archive}: '{member.name}' is longer than it says.", _BOMB)
            out.write(block)
    if left:
        raise InputError(f"{archive}: '{member.name}' is shorter than it says.", "the archive is damaged; fetch it again.")


@contextmanager
def _zip_members(archive: Path, rules: Unpack) -> Iterator[Iterator[Member]]:
    with zipfile.ZipFile(archive) as opened:

        def members() -> Iterator[Member]:
            for info in opened.infolist():
                mode = stat.S_IFMT(info.external_attr >> 16)
                if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise InputError(f"{archive} holds '{info.filename}', which is a link or a device.", _ODD)
                if info.flag_bits & 0x1:
                    raise InputError(f"{archive} holds '{info.filename}', which is encrypted.", _ODD)
                if info.is_dir():
                    yield Member(info.filename, 0, None, info.header_offset)
                    continue
                with opened.open(info) as stream:
                    yield Member(info.filename, info.file_size, stream, info.header_offset)

        yield members()


@contextmanager
def _tar_members(archive: Path, rules: Unpack) -> Iterator[Iterator[Member]]:
    bound = rules.at_most + _HEADERS * rules.members + _CHUNK
    with archive.open("rb") as raw:
        source: Any = gzip.GzipFile(fileobj=raw) if rules.format == "tar.gz" else raw
        watched = _Watched(source, bound, archive)
        with tarfile.open(fileobj=watched, mode="r|") as opened:  # type: ignore[call-overload]

            def members() -> Iterator[Member]:
                for info in opened:
                    if not (info.isreg() or info.isdir()):
                        raise InputError(f"{archive} holds '{info.name}', which is a link or a device.", _ODD)
                    size, stream = (0, None) if info.isdir() else (info.size, opened.extractfile(info))
                    yield Member(info.name, size, stream, raw.tell())
                watched.require_end(opened.offset)

            yield members()


class _Watched:
    """A stream that ends a bomb in the headers (a long name of 10 GB is read into memory), and knows where its last byte lies."""

    def __init__(self, source: IO[bytes], bound: int, archive: Path) -> None:
        self.source, self.bound, self.archive = source, bound, archive
        self.position = self.last = 0

    def read(self, count: int) -> bytes:
        """Bytes of the archive, decompressed."""
        data = self.source.read(count)
        if length := len(data.rstrip(b"\0")):
            self.last = self.position + length
        self.position += len(data)
        if self.position > self.bound:
            raise InputError(f"{self.archive} unpacks to more than it may.", _BOMB)
        return data

    def require_end(self, end: int) -> None:
        """Refuses a false end: tarfile takes a cut between members and a damaged header for one. Behind a real one, all is zero."""
        while self.read(_CHUNK):
            pass
        if self.last > end or self.position < end + _BLOCK:
            raise tarfile.ReadError("it ends too early")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
