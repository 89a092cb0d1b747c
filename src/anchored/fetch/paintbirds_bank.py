"""The unlabelled bank beside PaintBirds: crops of photographs from the same kind of packages, none of which PaintBirds uses.

256 photographs of animals, fish, buildings, tools and landscapes (GCompris, Tux Paint's templates, Lomiri's wallpapers), the
same number of random square crops of each. For training an objective's head and for measuring a Fisher on images that no
labelled split shares.

`paintbirds-bank.csv` is the reviewed table. Chosen by looking at all of them: photographs with a short side of 160 pixels or
more; left out are GCompris' paintings and details, two abstract wallpapers, and what PaintBirds takes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from pydantic import Field

from anchored.fetch.built_folder import building, describe
from anchored.fetch.photos import photograph, random_square, write_png
from anchored.fetch.pictures import Picture, read_pictures, read_table
from anchored.plan.base import FractionRange, Section
from anchored.progress import progress

NAME, VERSION = "PaintBirds bank", "1"
NOTE = "crops of photographs from Debian packages, unlabelled; shares no photograph with PaintBirds"
TABLE = "paintbirds-bank.csv"


class Recipe(Section):
    """The numbers of the bank."""

    size: int = Field(default=128, ge=16)
    """Side of the crops in pixels."""
    crops: int = Field(default=12, ge=1, le=24)
    """Crops of each photograph; more than 24 of one would be near copies."""
    side: FractionRange = (0.35, 1.0)
    """Side of a crop, as a share of the photograph's short side."""
    seed: int = 0
    """Seed of the generator."""


def build(target: Path, cache: Path, *, source: Any = None, recipe: Recipe | None = None) -> None:
    """Builds the folder `target` of PNG crops; arguments and errors as in `paintbirds.build`."""
    recipe = recipe or Recipe()
    table = read_table(TABLE, Picture)
    with building(target) as folder:
        pictures = read_pictures(table, cache)
        pixels = write_crops(folder, table, {picture: pictures.of(picture) for picture in table}, recipe)
        made = {
            "recipe": recipe.model_dump(),
            "images": len(table) * recipe.crops,
            "pixels": pixels,
            "libraries": {"pillow": PIL.__version__, "numpy": np.__version__},
        }
        describe(folder, pictures, table, name=NAME, version=VERSION, note=NOTE, recipe=made)


def write_crops(folder: Path, table: Sequence[Picture], content: Mapping[Picture, bytes], recipe: Recipe) -> str:
    """Writes `crops` PNG files for each picture, `PPP_stem_CC.png`; returns the SHA-256 of all pixels."""
    rng = np.random.default_rng(recipe.seed)
    digest = hashlib.sha256()
    with progress(f"{NAME}, photographs", len(table)) as advance:
        for number, picture in enumerate(table):
            photo = photograph(content[picture])
            for turn in range(recipe.crops):
                crop = random_square(rng, photo, recipe.side, recipe.size)
                digest.update(crop.tobytes())
                write_png(folder / "images" / f"{number:03d}_{Path(picture.path).stem}_{turn:02d}.png", crop)
            advance()
    return digest.hexdigest()
