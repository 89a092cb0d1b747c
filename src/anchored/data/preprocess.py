"""The steps of a convention (plan/preprocessing.py) on one image: pixel by pixel what torchvision's transforms make of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def preprocess(image: Image.Image, transform: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """Pixels (S, S, 3) of an RGB image after the steps of `transform`."""
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
    return image.resize((width, height), _FILTERS[step["filter"]])


def _centre_crop(image: Image.Image, step: Mapping[str, Any]) -> Image.Image:
    size = step["size"]
    left, top = (round((side - size) / 2) for side in image.size)
    return image.crop((left, top, left + size, top + size))


_STEPS = {"resize": _resize, "resize-short": _resize_short, "centre-crop": _centre_crop}
