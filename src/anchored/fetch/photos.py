"""What both builders do with a photograph: decode it, take a random square of it, write it."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from anchored.files import write_bytes


def photograph(data: bytes) -> Image.Image:
    """The photograph in RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def random_square(rng: np.random.Generator, photo: Image.Image, share: tuple[float, float], size: int) -> Image.Image:
    """A square somewhere in the photograph, its side a random `share` of the short side, as an image (size, size)."""
    side = rng.uniform(*share) * min(photo.size)
    left, top = (rng.uniform(0, extent - side) for extent in photo.size)
    # the last digits of left + side may lie outside, which Pillow refuses
    right, bottom = (min(start + side, extent) for start, extent in zip((left, top), photo.size, strict=True))
    return photo.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def write_png(path: Path, image: Image.Image) -> None:
    """Writes the image without loss, whole or not at all."""
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    write_bytes(path, encoded.getvalue())
