"""The unrelated target: tell from which of nine photographs a crop is.

Photographs that scikit-image carries (all public domain, CC0, or without known copyright restrictions, as its documentation of
each says): people, things, tissue; none of the bank's digits, grass or gravel. Each is scaled to a short side of 300 pixels
and cut into tiles of 36 pixels; tiles of one colour of the checkerboard give training crops, those of the other test crops,
so no pixel of a scaled photograph is in both. The next draw swaps the colours. Tiles without structure (sky) are left out.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from anchored.data.store import Store
from anchored.plan.naming import derive_seed

PHOTOGRAPHS = {
    "astronaut": "NASA, public domain",
    "brick": "CC0Textures, CC0",
    "camera": "Lav Varshney, CC0",
    "chelsea": "Stefan van der Walt, CC0",
    "coffee": "Rachel Michetti, CC0",
    "coins": "Brooklyn Museum, no known copyright restrictions",
    "immunohistochemistry": "CMMI, no known copyright restrictions",
    "retina": "Mikael Häggström, CC0",
    "rocket": "SpaceX, public domain",
}
"""Name in `skimage.data`, and what scikit-image says about its source and terms."""

_SHORT_SIDE = 300
_TILE = 36
_CROP = 30
_LEAST_CONTRAST = 10.0

Pixels = NDArray[np.uint8]


def photograph_task(seed: int, *, draws: int, train: int, test: int, size: int) -> Store:
    """The task as a dataset in memory, with splits train, val and test.

    Args:
        seed: every crop derives from it.
        draws: number of independent draws of all splits.
        train: training crops of each photograph.
        test: test crops of each photograph.
        size: side of an image, in pixels.
    """
    images: list[Pixels] = []
    lines: list[dict[str, int | str]] = []
    # The training loop looks at val after every epoch; nothing is selected here, so one crop of each photograph does.
    counts = {"train": train, "val": 1, "test": test}
    for label, name in enumerate(PHOTOGRAPHS):
        photograph = _photograph(name)
        for draw in range(draws):
            for split, count in counts.items():
                tiles = _tiles(photograph, parity=(draw + (split == "test")) % 2)
                crop = _cropper(photograph, tiles, size, np.random.default_rng(derive_seed(seed, name, draw, split)))
                images += [crop() for _ in range(count)]
                lines += [{"split": split, "draw": draw, "y": label}] * count
    index = pl.DataFrame(lines, schema={"split": pl.String, "draw": pl.Int16, "y": pl.Int16})
    index = index.with_columns(pl.lit(0, pl.Int16).alias("a"), pl.col("y").alias("group")).with_row_index("row")
    return Store("photographs", np.stack(images), index, {"layers": {"image": [0, 3]}})


def _photograph(name: str) -> Image.Image:
    import skimage.data

    image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    scale = _SHORT_SIDE / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def _tiles(photograph: Image.Image, *, parity: int) -> list[tuple[int, int]]:
    """Left and top of the tiles of one colour of the checkerboard that have structure."""
    grey = np.asarray(photograph.convert("L"), np.float64)
    corners = [
        (column * _TILE, row * _TILE)
        for row in range(photograph.height // _TILE)
        for column in range(photograph.width // _TILE)
        if (row + column) % 2 == parity
    ]
    return [(left, top) for left, top in corners if grey[top : top + _TILE, left : left + _TILE].std() >= _LEAST_CONTRAST]


def _cropper(
    photograph: Image.Image, tiles: list[tuple[int, int]], size: int, rng: np.random.Generator
) -> Callable[[], Pixels]:
    """A function that gives the next random crop (size, size, 3) inside of one of `tiles`."""

    def crop() -> Pixels:
        left, top = tiles[rng.integers(len(tiles))]
        shift = rng.integers(0, _TILE - _CROP + 1, 2)
        x, y = left + int(shift[0]), top + int(shift[1])
        part = photograph.crop((x, y, x + _CROP, y + _CROP))
        return np.asarray(part.resize((size, size), Image.Resampling.BICUBIC))

    return crop
