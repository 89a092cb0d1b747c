"""The recipes of random views that a configuration can name; where `recipe` is left out, it is `scenes`."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from anchored.plan.base import Count, Fraction, FractionRange, NonNegative, PositiveRange, Section


class SceneViews(Section):
    """Random views of small images: crops, colours, and the bank's background swap."""

    recipe: Literal["scenes"] = "scenes"
    """Names the recipe."""
    global_crops: Annotated[int, Field(ge=2)] = 2
    """Number of large crops; teacher and student see them."""
    local_crops: Annotated[int, Field(ge=0)] = 0
    """Number of small crops; only the student sees them."""
    global_scale: FractionRange = (0.6, 1.0)
    """Share of the image's area in a large crop."""
    local_scale: FractionRange = (0.2, 0.6)
    """Share of the image's area in a small crop."""
    local_size: Count = 12
    """Side of a small crop, in pixels; a large crop has the image's side."""
    flip: Fraction = 0.0
    """Probability of a horizontal flip (0 for digits: a mirrored digit is none)."""
    contrast: Fraction = 0.2
    """Half-width of the random contrast factor."""
    brightness: Fraction = 0.15
    """Half-width of the random shift of each channel."""
    grey: Fraction = 0.1
    """Probability of dropping the colour."""
    blur: Fraction = 0.2
    """Probability of a 3x3 blur."""
    background_swap: Fraction = 0.0
    """Probability of pasting the foreground on the background of another bank image; needs a bank with masks. It builds the
    premise in: a backbone that ignores the background."""


class DinoViews(Section):
    """The multi-crop views of DINO (Caron et al. 2021), of stored images of any size.

    Store them larger than a large crop (`size: 256` of the bank, or more): a small crop of 5 % of 256 x 256 has a side of 57
    pixels before it is enlarged to `local_size`. What lies outside of the stored central square is never seen.
    """

    recipe: Literal["dino"]
    """Names the recipe."""
    global_crops: Annotated[int, Field(ge=2)] = 2
    """Number of large crops; teacher and student see them."""
    local_crops: Annotated[int, Field(ge=0)] = 8
    """Number of small crops; only the student sees them."""
    global_scale: FractionRange = (0.4, 1.0)
    """Share of the image's area in a large crop."""
    local_scale: FractionRange = (0.05, 0.4)
    """Share of the image's area in a small crop."""
    global_size: Count = 224
    """Side of a large crop after resizing, in pixels."""
    local_size: Count = 96
    """Side of a small crop after resizing, in pixels."""
    ratio: PositiveRange = (3 / 4, 4 / 3)
    """Width of a crop divided by its height, before resizing."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    jitter: Fraction = 0.8
    """Probability of changing brightness, contrast, saturation and hue, in random order."""
    brightness: NonNegative = 0.4
    """Half-width of the factor of brightness."""
    contrast: NonNegative = 0.4
    """Half-width of the factor of contrast."""
    saturation: NonNegative = 0.2
    """Half-width of the factor of saturation."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Largest turn of the hue, as a share of the circle."""
    grey: Fraction = 0.2
    """Probability of dropping the colour."""
    blur: tuple[Fraction, Fraction, Fraction] = (1.0, 0.1, 0.5)
    """Probability of a Gaussian blur of the first large crop, of each other large one, of each small one."""
    blur_sigma: PositiveRange = (0.1, 2.0)
    """Range of the blur's standard deviation, in pixels; Pillow calls it radius."""
    solarize: Fraction = 0.2
    """Probability of inverting the bright half of the range, for each large crop but the first."""


def _recipe(value: Any) -> str:
    """The recipe of a section, whose key may be left out."""
    name = value.get("recipe", "scenes") if isinstance(value, dict) else getattr(value, "recipe", "scenes")
    return name if isinstance(name, str) else repr(name)


Views = Annotated[Annotated[SceneViews, Tag("scenes")] | Annotated[DinoViews, Tag("dino")], Discriminator(_recipe)]
