"""Encoded images in memory, for tests of what decodes them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from anchored.plan.preprocessing import transform
from anchored.readers.decode import Decoded

SIZE = 12


class InMemory:
    """Encoded images of a list; None: missing. Counts its reads."""

    def __init__(self, files: list[bytes | None]) -> None:
        self.files = files
        self.where = Path("memory")
        self.names = [f"{number}.png" for number in range(len(files))]
        self.reads: list[int] = []

    def read(self, number: int) -> bytes:
        self.reads.append(number)
        data = self.files[number]
        if data is None:
            raise FileNotFoundError(2, "No such file or directory")
        return data


def png(number: int, size: tuple[int, int] = (17, 14)) -> bytes:
    """An image whose content tells its number."""
    pixels = np.random.default_rng([number]).integers(0, 256, (*size[::-1], 3), np.uint8)
    pixels[:, :, 0] = number % 256
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def decoded(files: list[bytes | None], **options: object) -> Decoded:
    return Decoded(InMemory(files), SIZE, transform("group-dro", "scenes", SIZE), **options)  # type: ignore[arg-type]
