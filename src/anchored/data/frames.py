"""Squares of a store without loss in less space: a zstd frame an image, of differences that compress better than pixels.

    green, red - green, blue - green, each as a plane;   row y of a plane minus row y - 1;   all modulo 256

Neighbours and channels of a photograph resemble each other, which zstd, made for repeated strings, does not see by itself. Both
differences are undone by additions of whole rows: most of the time that is left is zstd's own. Measurements
against other codecs are in benchmarks/decoding.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from anchored.data.parallel import in_order
from anchored.errors import InputError
from anchored.processes import cpus

# Higher levels take longer and gain nothing on differences, in which no string repeats.
_LEVEL = 1
# Images of a thread's task: fewer, and handing out the tasks costs as much as they do.
_TOGETHER = 4

VERSION = "zstd " + ".".join(map(str, zstandard.ZSTD_VERSION))
"""The library that makes the bytes; another version may make others, of the same pixels."""


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """The frame of an image (H, W, 3)."""
    planes = np.empty((3, *pixels.shape[:2]), np.uint8)
    planes[0] = pixels[..., 1]
    np.subtract(pixels[..., 0], pixels[..., 1], out=planes[1])
    np.subtract(pixels[..., 2], pixels[..., 1], out=planes[2])
    differences = planes.copy()
    np.subtract(planes[:, 1:], planes[:, :-1], out=differences[:, 1:])
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True).compress(differences.data)


def decode(frame: NDArray[np.uint8] | bytes, out: NDArray[np.uint8]) -> None:
    """Puts the image of `frame` into `out`, (H, W, 3).

    Raises:
        zstandard.ZstdError: the frame is damaged.
    """
    content = zstandard.ZstdDecompressor().decompress(frame, max_output_size=out.nbytes)  # type: ignore[arg-type]
    if len(content) != out.nbytes:
        raise zstandard.ZstdError(f"a frame of {len(content)} bytes, {out.nbytes} expected")
    planes = np.add.accumulate(np.frombuffer(content, np.uint8).reshape(3, *out.shape[:2]), axis=1, dtype=np.uint8)
    planes[1:] += planes[0]
    out[..., 1], out[..., 0], out[..., 2] = planes


class Frames:
    """Images (N, H, W, 3) uint8 that are decompressed as they are indexed: rows as in numpy, of the first axis only.

    Args:
        data: (bytes,) the frames, one after the other.
        ends: (N,) where each ends.
        shape: (N, H, W, 3).
        where: the dataset, for messages.
        workers: threads that decompress; as many as the process has CPUs where it is left out.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, data: NDArray[np.uint8], ends: NDArray[np.int64], shape: tuple[int, ...], *, where: str, workers: int | None = None
    ) -> None:
        self._data, self._ends, self.shape, self._where = data, ends, shape, where
        self._workers = workers or cpus()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Images (..., H, W, 3) of an integer, a slice, or an array of integers or booleans.

        Raises:
            InputError: a frame is damaged.
        """
        numbers = np.arange(len(self))[rows]
        out = np.empty((numbers.size, *self.shape[1:]), np.uint8)
        flat = numbers.ravel()
        parts = [slice(start, start + _TOGETHER) for start in range(0, len(flat), _TOGETHER)]

        def fill(part: slice) -> None:
            for number, image in zip(flat[part], out[part], strict=True):
                decode(self._data[self._ends[number - 1] if number else 0 : self._ends[number]], image)

        try:
            _for_each(fill, parts, min(self._workers, len(parts)))
        except zstandard.ZstdError as error:
            raise InputError(f"the images of dataset '{self._where}' are damaged: {error}.",
                             f"run `anchored prepare {self._where} --force`.") from error  # fmt: skip
        return out.reshape(*numbers.shape, *self.shape[1:])


def _for_each(work: Callable[[slice], None], parts: list[slice], workers: int) -> None:
    if workers < 2:
        for part in parts:
            work(part)
    else:
        for _ in in_order(work, parts, workers=workers):
            pass
