"""PaintBirds: photographs of birds pasted on photographs of land and water, all from Debian packages.

34 cut-outs of birds (Tux Paint's stamps) and 23 photographs of places, in the on-disk format of Waterbirds; class y tells
waterbirds (1) from landbirds (0), place tells water (1) from land (0). In the training split the place agrees with the class in a
share `correlation` of either class; in val and test all four groups are equally large. A scene is

    a random square of the photograph (inside the boxes that keep out animals and the wrong kind of place), resized
    + a cut-out: flipped or not, rotated, scaled, at a random place

The photographs of the places are disjoint between the splits. The cut-outs are shared by default: there is one photograph of a
species, so disjoint ones would ask for species that were never seen, which Waterbirds does not.

`paintbirds.csv` is the reviewed table, one line a picture. Its column `split` was drawn once with `default_rng(0).permutation`,
in the order waterbird, landbird, water, land; about half of each is train, a fifth val, the rest test.

Every number comes from one seeded generator: the same seed gives the same pixels with the same version of Pillow.
"""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image
from pydantic import BeforeValidator, Field, model_validator

from anchored.fetch.built_folder import building, describe
from anchored.fetch.photos import photograph, random_square, write_png
from anchored.fetch.pictures import Picture, read_pictures, read_table
from anchored.files import write_text
from anchored.plan.base import FractionRange, Section
from anchored.progress import progress

NAME, VERSION = "PaintBirds", "1"
NOTE = "composites of photographs from Debian packages; not Waterbirds"
TABLE = "paintbirds.csv"
SPLITS = ("train", "val", "test")
CLASSES = ("landbird", "waterbird")
PLACES = ("land", "water")

T = TypeVar("T")
Box = tuple[float, float, float, float]


def _boxes(text: Any) -> Any:
    return tuple(tuple(float(number) for number in box.split()) for box in text.split(";")) if isinstance(text, str) else text


class Part(Picture):
    """A cut-out or a photograph of a place."""

    label: Literal["landbird", "waterbird", "land", "water"]
    """The class of a cut-out, or the place."""
    split: Literal["train", "val", "test"]
    """Where it is used; cut-outs are used everywhere unless the recipe says `disjoint`."""
    boxes: Annotated[tuple[Box, ...] | None, BeforeValidator(_boxes)] = None
    """Left, top, right, bottom as fractions of the photograph: where squares may be taken."""

    @model_validator(mode="after")
    def _boxed(self) -> Self:
        if (self.boxes is None) == (self.label in PLACES):
            raise ValueError("photographs of places have boxes, cut-outs have none")
        for left, top, right, bottom in self.boxes or ():
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(f"{(left, top, right, bottom)} is no box inside the photograph")
        return self


class Recipe(Section):
    """The numbers of the dataset."""

    size: int = Field(default=112, ge=16)
    """Side of the images in pixels; a multiple of 14 suits a ViT of patch 14."""
    train: int = Field(default=1000, ge=4)
    """Images of the training split."""
    val: int = Field(default=300, ge=4, multiple_of=4)
    """Images of the validation split, a quarter in each group."""
    test: int = Field(default=600, ge=4, multiple_of=4)
    """Images of the test split, a quarter in each group."""
    waterbird_share: float = Field(default=0.25, gt=0, lt=1)
    """Share of waterbirds in the training split."""
    correlation: float = Field(default=0.95, ge=0.5, le=1)
    """Share of the training images of either class whose place agrees with the class."""
    cut_outs: Literal["shared", "disjoint"] = "shared"
    """Whether the splits share the birds."""
    crop: FractionRange = (0.55, 1.0)
    """Side of the square of a photograph, as a share of the box's short side."""
    scale: FractionRange = (0.5, 0.8)
    """Longer side of the bird, as a share of the image."""
    rotation: float = Field(default=12.0, ge=0, le=15)
    """Degrees by which the bird is turned at most, either way."""
    seed: int = 0
    """Seed of the generator."""


@dataclass(frozen=True)
class Scene:
    """An image and its line in metadata.csv."""

    pixels: Image.Image
    split: int
    y: int
    place: int
    bird: str
    place_filename: str


def build(target: Path, cache: Path, *, source: Any = None, recipe: Recipe | None = None) -> None:
    """Builds the dataset folder `target`: metadata.csv, landbird/, waterbird/ and where all of it is from.

    Args:
        target: the folder; replaced as a whole.
        cache: where the packages are kept, about 320 MB.
        source: entry of the table of sources; not needed.
        recipe: the numbers; the defaults if left out.

    Raises:
        EnvironmentFailure: apt-get or dpkg-deb is missing, a download fails, or the disk is full.
        InputError: a picture is missing or is not the reviewed one.
        ConfigError: `target` holds something else.
    """
    recipe = recipe or Recipe()
    parts = read_table(TABLE, Part)
    with building(target) as folder:
        pictures = read_pictures(parts, cache)
        made = scenes(parts, {part: pictures.of(part) for part in parts}, recipe)
        pixels = write_dataset(folder, made, recipe.train + recipe.val + recipe.test)
        libraries = {"pillow": PIL.__version__, "numpy": np.__version__}
        numbers = {"recipe": recipe.model_dump(), "pixels": pixels, "libraries": libraries}
        describe(folder, pictures, parts, name=NAME, version=VERSION, note=NOTE, recipe=numbers)


def scenes(parts: Sequence[Part], content: Mapping[Part, bytes], recipe: Recipe) -> Iterator[Scene]:
    """All scenes in the order of metadata.csv: train, val, test.

    Args:
        parts: cut-outs and photographs; their order counts for the draw.
        content: the files of the pictures.
        recipe: the numbers.
    """
    rng = np.random.default_rng(recipe.seed)
    birds = {part: _cut_out(content[part]) for part in parts if part.label in CLASSES}
    places = {part: _crops(part, content[part]) for part in parts if part.label in PLACES}
    for split, (y, place) in enumerate(_labels(recipe)):
        order = rng.permutation(len(y))
        for label, where in zip(y[order].tolist(), place[order].tolist(), strict=True):
            bird = _pick(rng, [part for part in birds if part.label == CLASSES[label] and _usable(part, split, recipe)])
            photo = _pick(rng, [part for part in places if part.label == PLACES[where] and part.split == SPLITS[split]])
            background = random_square(rng, _pick(rng, places[photo]), recipe.crop, recipe.size)
            _paste(rng, background, birds[bird], recipe)
            name = Path(bird.path).stem
            yield Scene(background, split, label, where, name, f"{photo.package}:{photo.path}")


def write_dataset(folder: Path, made: Iterable[Scene], count: int) -> str:
    """Writes `count` images and metadata.csv; returns the SHA-256 of all pixels and the table, which no PNG encoder moves."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["img_id", "img_filename", "y", "split", "place", "place_filename"])
    digest = hashlib.sha256()
    with progress(f"{NAME}, images", count) as advance:
        for number, scene in enumerate(made, start=1):
            name = f"{CLASSES[scene.y]}/{number:05d}_{scene.bird}.png"
            writer.writerow([number, name, scene.y, scene.split, scene.place, scene.place_filename])
            digest.update(scene.pixels.tobytes())
            write_png(folder / name, scene.pixels)
            advance()
    write_text(folder / "metadata.csv", table.getvalue())
    digest.update(table.getvalue().encode())
    return digest.hexdigest()


def _labels(recipe: Recipe) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Class and place of every image of train, val and test, not yet shuffled."""
    waterbirds = round(recipe.train * recipe.waterbird_share)
    y = np.repeat([0, 1], [recipe.train - waterbirds, waterbirds])
    place = y.copy()
    for label in (0, 1):
        members = np.flatnonzero(y == label)
        place[members[: round(len(members) * (1 - recipe.correlation))]] = 1 - label
    groups = [np.repeat(np.arange(4), count // 4) for count in (recipe.val, recipe.test)]
    return [(y, place), *((group // 2, group % 2) for group in groups)]


def _usable(part: Part, split: int, recipe: Recipe) -> bool:
    return recipe.cut_outs == "shared" or part.split == SPLITS[split]


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _cut_out(data: bytes) -> Image.Image:
    """The bird without its transparent margin."""
    with Image.open(io.BytesIO(data)) as image:
        bird = image.convert("RGBA")
    return bird.crop(bird.getchannel("A").getbbox())


def _crops(part: Part, data: bytes) -> list[Image.Image]:
    photo = photograph(data)
    width, height = photo.size
    return [
        photo.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
        for left, top, right, bottom in part.boxes or ()
    ]


def _paste(rng: np.random.Generator, background: Image.Image, bird: Image.Image, recipe: Recipe) -> None:
    """Puts the bird somewhere on the background, wholly inside."""
    if rng.random() < 0.5:
        bird = bird.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = bird.rotate(rng.uniform(-recipe.rotation, recipe.rotation), Image.Resampling.BICUBIC, expand=True)
    turned = turned.crop(turned.getchannel("A").getbbox())
    factor = rng.uniform(*recipe.scale) * recipe.size / max(turned.size)
    width, height = (max(1, round(extent * factor)) for extent in turned.size)
    small = turned.resize((width, height), Image.Resampling.BICUBIC)
    corner = int(rng.integers(recipe.size - width + 1)), int(rng.integers(recipe.size - height + 1))
    background.paste(small, corner, mask=small)
