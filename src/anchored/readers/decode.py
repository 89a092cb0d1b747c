"""From encoded images to the squares of the store."""

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from anchored.data.parallel import in_order
from anchored.errors import InputError
from anchored.progress import progress
from anchored.readers.encoded import Encoded, digest_of
from anchored.readers.preprocess import Unreadable, decode, preprocess

_NAMED = 3


class Square(NamedTuple):
    """One image, decoded."""

    content: Any
    """Pixels (S, S, 3) uint8, or what was asked to be made of them; black where the image cannot be read."""
    digest: str | None
    """SHA-256 of the encoded bytes; None where there are none."""
    fault: str
    """Why it cannot be read; empty where it can."""


@dataclass(frozen=True)
class Decoded:
    """Images (N, S, S, 3) uint8, decoded as they are asked for: all of them may not fit into memory.

    Args:
        encoded: the images.
        size: side S of the result.
        transform: the steps of plan/preprocessing.py that make the result.
        workers: threads that decode; as many as the process has CPUs where it is left out.

    Attributes:
        digests: SHA-256 of every image's encoded bytes, (N,) once all have been iterated over or packed; None: unreadable.
    """

    encoded: Encoded
    size: int
    transform: Sequence[Mapping[str, Any]]
    workers: int | None = field(default=None, kw_only=True)
    digests: list[str | None] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        return len(self.encoded.names), self.size, self.size, 3

    @property
    def recipe(self) -> dict[str, Any]:
        """All that the pixels follow from beside the encoded bytes and this package's code."""
        libraries = {"pillow": PIL.__version__} | {name: features.version(name) for name in ("jpg", "zlib", "webp", "libtiff")}
        return {"size": self.size, "transform": list(self.transform), "libraries": libraries}

    def __len__(self) -> int:
        return len(self.encoded.names)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for square in self.squares([]):
            yield square.content

    def squares(
        self, done: Sequence[str], make: Callable[[NDArray[np.uint8]], Any] = np.asarray
    ) -> Generator[Square, None, None]:
        """The images that follow the first ones, in order.

        Args:
            done: digests of the first ones.
            make: called with the pixels of each, by several threads.

        Raises:
            InputError: images cannot be read, after the last one; gives the count and the first ones.
        """
        self.digests[:] = done
        faults = []
        with progress(f"read {self.encoded.where.name}", len(self)) as advance:
            advance(len(done))
            numbers = range(len(done), len(self))
            for square in in_order(lambda number: self._square(number, make), numbers, workers=self.workers):
                if square.fault:
                    faults.append(f"{self.encoded.names[len(self.digests)]} ({square.fault})")
                self.digests.append(square.digest)
                yield square
                advance()
        if faults:
            first = ", ".join(faults[:_NAMED])
            where = self.encoded.where
            raise InputError(f"{where}: {len(faults)} images are missing or cannot be read: {first}.", "replace them.")

    def unchanged(self, digests: Sequence[str]) -> int:
        """How many of the first images still have these digests, up to the first that has another."""
        same = 0
        found = in_order(partial(digest_of, self.encoded), range(min(len(digests), len(self))), workers=self.workers)
        with progress(f"check {self.encoded.where.name}", len(digests)) as advance:
            for number, digest in enumerate(found):
                if digest != digests[number]:
                    break
                same += 1
                advance()
        return same

    def _square(self, number: int, make: Callable[[NDArray[np.uint8]], Any]) -> Square:
        digest = None
        try:
            data = self.encoded.read(number)
            digest = hashlib.sha256(data).hexdigest()
            return Square(make(preprocess(decode(data), self.transform)), digest, "")
        except Unreadable as error:
            fault = str(error)
        except OSError as error:
            fault = (error.strerror or str(error) or "unreadable").lower()
        return Square(make(np.zeros(self.shape[1:], np.uint8)), digest, fault)
