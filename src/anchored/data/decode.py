"""From encoded images to the squares of the store."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anchored.data.encoded import Encoded
from anchored.data.preprocess import Unreadable, decode, preprocess
from anchored.errors import InputError
from anchored.progress import progress


@dataclass(frozen=True)
class Decoded:
    """Images (N, S, S, 3) uint8, decoded as they are asked for: all of them may not fit into memory.

    Args:
        encoded: the images.
        size: side S of the result.
        transform: the steps of plan/preprocessing.py that make the result.

    Raises:
        InputError: images cannot be read, while iterating, after the last one; gives the count and the first ones.
    """

    encoded: Encoded
    size: int
    transform: Sequence[Mapping[str, Any]]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        return len(self.encoded.names), self.size, self.size, 3

    def __len__(self) -> int:
        return len(self.encoded.names)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        bad = []
        with progress(f"read {self.encoded.where.name}", len(self)) as advance:
            for number, name in enumerate(self.encoded.names):
                pixels = np.zeros(self.shape[1:], np.uint8)
                try:
                    pixels = preprocess(decode(self.encoded.read(number)), self.transform)
                except (OSError, Unreadable):
                    bad.append(name)
                # Outside of the block above: an error of who asks is none of the image.
                yield pixels
                advance()
        if bad:
            first = ", ".join(bad[:3])
            where = self.encoded.where
            raise InputError(f"{where}: {len(bad)} images are missing or cannot be read: {first}.", "replace them.")
