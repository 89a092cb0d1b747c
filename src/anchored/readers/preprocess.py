"""The steps of a convention (plan/preprocessing.py) on one image: pixel by pixel what torchvision's transforms make of it.

An image is opened as the published code opens it, `Image.open(file).convert("RGB")`: transparency is dropped, a palette looked up,
CMYK inverted without a profile, the orientation that EXIF notes not applied; of several frames the first counts. Refused is what
that code would let pass and nobody means: single channels of more than 8 bits, which the conversion cuts at 255, and sizes that
no photograph has.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# Pixels above which Pillow warns of a decompression bomb; here for the image as it comes and for every step in between.
MOST_PIXELS = 89_478_485

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Unreadable(ValueError):
    """Bytes that hold no image, or one that is refused; says why in a few words."""


def decode(data: bytes) -> Image.Image:
    """The RGB image that the bytes of a file hold.

    Raises:
        Unreadable: they hold none, or one that is refused.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse_large(*image.size)
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                raise Unreadable("more than 8 bits a channel")
            # Read by nobody after the conversion, which warns of palettes with it.
            image.info.pop("transparency", None)
            return image.convert("RGB")
    except (Unreadable, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("no image") from error
    except Image.DecompressionBombError as error:
        raise Unreadable("too many pixels") from error
    except Exception as error:  # Pillow's readers raise what the damage leads to: struct.error, IndexError, SyntaxError, ...
        raise Unreadable((str(error) or type(error).__name__).splitlines()[0][:80]) from error


def preprocess(image: Image.Image, transform: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """Pixels (S, S, 3) of an RGB image after the steps of `transform`.

    Raises:
        Unreadable: the image is so much longer than wide that a step would make a decompression bomb of it.
    """
    for step in transform:
        image = _STEPS[step["step"]](image, step)
    return np.asarray(image)


def _resize(image: Image.Image, step: Mapping[str, Any]) -> Image.Image:
    height, width = step["size"]
    return image.resize((width, height), _FILTERS[step["filter"]])


def _resize_short(image: Image.Image, step: Mapping[str, Any]) -> Image.Image:
    short, size = min(image.size), step["size"]
    # The longer side is cut to an integer, not rounded: torchvision does so, and one pixel moves all others.
    width, height = (size if side == short else int(size * side / short) for side in image.size)
    _refuse_large(width, height)
    return image.resize((width, height), _FILTERS[step["filter"]])


def _centre_crop(image: Image.Image, step: Mapping[str, Any]) -> Image.Image:
    size = step["size"]
    left, top = (_margin(side, size) for side in image.size)
    # What lies outside of the image is black.
    return image.crop((left, top, left + size, top + size))


def _margin(side: int, size: int) -> int:
    """Where a crop of `size` begins; half a pixel goes to the even number where it cuts and to the far end where it pads."""
    return round((side - size) / 2) if side >= size else -((size - side) // 2)


def _refuse_large(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise Unreadable(f"too many pixels: {width} x {height}")


_STEPS = {"resize": _resize, "resize-short": _resize_short, "centre-crop": _centre_crop}
