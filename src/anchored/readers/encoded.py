"""Images as files hold them: readers say which bytes belong to which row, decoding is somebody else's (decode.py)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from anchored.data.parallel import in_order
from anchored.errors import InputError
from anchored.progress import progress

# An image that needs more bytes than this is none; an archive may claim any length.
LARGEST = 1 << 28


class Encoded(Protocol):
    """N encoded images that can be read in any order and by several threads at once."""

    @property
    def where(self) -> Path:
        """The folder or archive, for messages."""

    @property
    def names(self) -> Sequence[str]:
        """(N,) what each is called inside of `where`."""

    def read(self, number: int) -> bytes:
        """The bytes of one image.

        Raises:
            OSError: it is missing or cannot be read.
        """


@dataclass(frozen=True)
class FolderImages:
    """Image files of a folder.

    Args:
        where: the folder.
        names: paths inside of it.
    """

    where: Path
    names: Sequence[str]

    def read(self, number: int) -> bytes:
        """The bytes of one file."""
        return (self.where / self.names[number]).read_bytes()


@dataclass(frozen=True)
class Chosen:
    """Some of other images.

    Args:
        images: the others.
        numbers: which of them, in order.
    """

    images: Encoded
    numbers: Sequence[int]

    @property
    def where(self) -> Path:
        """That of the others."""
        return self.images.where

    @property
    def names(self) -> Sequence[str]:
        """Theirs."""
        return [self.images.names[number] for number in self.numbers]

    def read(self, number: int) -> bytes:
        """The bytes of one image."""
        return self.images.read(self.numbers[number])


def digest_of(images: Encoded, number: int) -> str | None:
    """SHA-256 of the encoded bytes of one image; None where it cannot be read."""
    try:
        return hashlib.sha256(images.read(number)).hexdigest()
    except OSError:
        return None


def digests(images: Encoded) -> list[str]:
    """SHA-256 of the encoded bytes of every image, in hexadecimal.

    A pass of its own before decoding: it finds missing files at the speed of reading, and what an interrupted run has decoded is
    compared with its result.

    Raises:
        InputError: images are missing or cannot be read; gives the count and the first ones.
    """
    found, bad = [], []
    with progress(f"digests of {images.where.name}", len(images.names)) as advance:
        names = images.names
        for name, digest in zip(names, in_order(partial(digest_of, images), range(len(names))), strict=True):
            if digest is None:
                bad.append(name)
            else:
                found.append(digest)
            advance()
    if bad:
        first = ", ".join(bad[:3])
        raise InputError(
            f"{images.where}: {len(bad)} of {len(images.names)} images are missing or cannot be read: {first}.",
            "place them there, or take their lines out of the table.",
        )
    return found
