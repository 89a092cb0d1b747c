"""Decoding into the file of a store, resumable: what an interrupted run has done is kept, and the bytes become the same.

    <work>/images.npy    the images from the first on, behind room for the header, which is written last
    <work>/journal       a line with the key of the pixels, then one an image: SHA-256 of its file, end of its bytes

Images are written in order, so both files are prefixes of what they become. A block of images reaches the disk before its lines of
the journal do. On resuming, the digests of the images' files are compared with the journal: an image whose file has changed, and
all behind it, are decoded again.
"""

import errno
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import anchored.data.frames as frames
from anchored.errors import EnvironmentFailure
from anchored.files import disk_failure, replacing, value_digest, write_text
from anchored.plan.preprocessing import Storage
from anchored.readers.decode import Decoded
from anchored.record import code_digest

log = logging.getLogger("anchored")

# Images between two commits: what a kill can cost.
_BLOCK = 256
# Bytes of the header of a .npy file: numpy leaves room for a number of images of any length.
_HEADER = 128


@dataclass(frozen=True)
class Packed:
    """A finished file, still in the folder of work.

    Args:
        path: the file.
        digests: (N,) SHA-256 of every image's encoded bytes.
        ends: (N,) where the bytes of each image end, counted from the first image.
    """

    path: Path
    digests: list[str]
    ends: NDArray[np.int64]


def pack(images: Decoded, work: Path, storage: Storage, known: Sequence[str] | None = None) -> Packed:
    """Decodes all images into a .npy file: (N, H, W, C) for `raw`, (bytes,) for `zstd`.

    Args:
        images: what to decode.
        work: folder of the file and its journal; what it holds from an earlier run is used where it fits.
        storage: how an image is written.
        known: (N,) SHA-256 of every image's encoded bytes; without them the files of images that are done are read again.

    Raises:
        InputError: images cannot be read; what was read before the first of them is kept.
        EnvironmentFailure: the disk is full or not writable; what is written is kept.
    """
    encode: Callable[[NDArray[np.uint8]], Any] = frames.encode if storage == "zstd" else np.ascontiguousarray
    try:
        work.mkdir(parents=True, exist_ok=True)
        journal = _Journal.read(work, _key(images, storage))
        journal.keep(images.unchanged(journal.digests) if known is None else _alike(journal.digests, known))
        if journal.digests:
            log.info("%s: %d of %d images are done", work.name, len(journal.digests), len(images))
        _require_space(images, journal, work, storage)
        with journal.appending() as append, closing(images.squares(tuple(journal.digests), encode)) as squares:
            whole = True
            for square in squares:
                whole = whole and not square.fault
                if whole:
                    append(square.digest or "", square.content)
        _write_header(journal.data, images.shape if storage == "raw" else (journal.ends[-1],))
    except OSError as error:
        failure = disk_failure(work / "images.npy", error)
        if isinstance(failure, EnvironmentFailure):
            raise EnvironmentFailure(failure.message, "free space, raise the quota or see to the owner, then run the same "
                                     "command again: it goes on where it stopped.") from error  # fmt: skip
        raise
    return Packed(journal.data, journal.digests, np.array(journal.ends, np.int64))


def move(source: Path, target: Path) -> None:
    """Moves a file to `target`, which may lie on another disk, whole or not at all."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise disk_failure(target, error) from error
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
        source.unlink()


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of the first values of both are equal."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _key(images: Decoded, storage: Storage) -> str:
    written = {"storage": storage} | ({"library": frames.VERSION} if storage == "zstd" else {})
    return value_digest(images.recipe | written | {"code": code_digest("prepare")})


def _require_space(images: Decoded, journal: "_Journal", work: Path, storage: Storage) -> None:
    """Refuses at once what would fail after hours. How small `zstd` becomes is not known before."""
    needed = int(np.prod(images.shape)) - journal.end
    free = shutil.disk_usage(work).free
    if storage == "raw" and needed > free:
        raise EnvironmentFailure(
            f"{len(images)} images of {images.size} x {images.size} pixels need {needed / 1e9:.1f} GB more, "
            f"{work} has {free / 1e9:.1f} GB.",
            "free space, lower `size`, or set `storage: zstd`, which takes less than half.",
        )


def _write_header(path: Path, shape: tuple[int, ...]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    assert len(header.getvalue()) == _HEADER
    with path.open("r+b") as stream:
        stream.write(header.getvalue())
        _to_disk(stream)


@dataclass
class _Journal:
    """The images that are done.

    Attributes:
        folder: where the two files lie.
        key: digest of all that the pixels follow from, beside the images' files.
        digests: SHA-256 of the images' files.
        ends: where the bytes of each end, counted from the first image.
    """

    folder: Path
    key: str
    digests: list[str] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    @property
    def data(self) -> Path:
        """The file of the images."""
        return self.folder / "images.npy"

    @property
    def end(self) -> int:
        """Bytes of all images that are done."""
        return self.ends[-1] if self.ends else 0

    @classmethod
    def read(cls, folder: Path, key: str) -> "_Journal":
        """The journal in `folder`; an empty one where there is none, or one of another key, or without its images."""
        found = cls(folder, key)
        try:
            lines = (folder / "journal").read_text().split("\n")
            size = found.data.stat().st_size
        except (OSError, UnicodeDecodeError):
            return found
        if lines[0] != key:
            return found
        for line in lines[1:-1]:  # behind the last newline is nothing, or half a line
            digest, _, end = line.partition(" ")
            if not (len(digest) == 64 and end.isdecimal() and found.end < int(end) <= size - _HEADER):
                break
            found.digests.append(digest)
            found.ends.append(int(end))
        return found

    def keep(self, count: int) -> None:
        """Forgets all but the first `count` images."""
        del self.digests[count:], self.ends[count:]

    @contextmanager
    def appending(self) -> Iterator[Callable[[str, Any], None]]:
        """Cuts both files to what is known, and yields a function that appends an image: digest, bytes."""
        known = [f"{digest} {end}" for digest, end in zip(self.digests, self.ends, strict=True)]
        write_text(self.folder / "journal", "\n".join([self.key, *known, ""]))
        self.data.touch()
        with self.data.open("r+b") as images, (self.folder / "journal").open("a") as lines:
            images.truncate(_HEADER + self.end)
            images.seek(_HEADER + self.end)
            waiting: list[str] = []

            def commit() -> None:
                _to_disk(images)
                lines.writelines(waiting)
                _to_disk(lines)
                waiting.clear()

            def append(digest: str, content: Any) -> None:
                images.write(content)
                self.digests.append(digest)
                self.ends.append(self.end + memoryview(content).nbytes)
                waiting.append(f"{digest} {self.end}\n")
                if len(waiting) == _BLOCK:
                    commit()

            try:
                yield append
            except BaseException:
                with suppress(OSError):  # a full disk: the error above is the one to report
                    commit()
                raise
            commit()


def _to_disk(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())
