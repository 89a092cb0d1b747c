"""The datasets that a configuration can name: labelled ones, and unlabelled banks for pre-training and the Fisher."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from anchored.plan.base import Count, Fraction, FractionRange, Identifier, NonNegative, Positive, Section
from anchored.plan.preprocessing import Convention, Storage


class Scene(Section):
    """How one scene of DigitScenes is drawn."""

    size: Annotated[int, Field(ge=8, le=256)] = 20
    """Side of the square image, in pixels."""
    digit: tuple[int, int] = (14, 16)
    """Smallest and largest side of the pasted digit, in pixels."""
    tint: FractionRange = (0.9, 1.0)
    """Range of the digit's brightness."""
    tint_spread: Fraction = 0.15
    """Half-width of the digit's brightness per channel around its tint."""
    place_tint: NonNegative = 0.8
    """Strength of the colour that tells the two places apart; 0 leaves the texture as the only cue."""
    texture: NonNegative = 0.16
    """Standard deviation of the background's texture."""
    gain: Fraction = 0.15
    """Half-width of the background's random gain per channel."""

    @model_validator(mode="after")
    def _digit_fits(self) -> Self:
        low, high = self.digit
        if not 4 <= low <= high <= self.size:
            raise ValueError(f"digit {low}-{high} must lie in 4..size ({self.size})")
        return self


class DigitScenes(Section):
    """Real handwritten digits on photographs of grass and gravel: a labelled dataset with a dialled spurious correlation."""

    reader: Literal["digitscenes"]
    """Names the kind of dataset."""
    scene: Scene = Scene()
    """How a scene is drawn."""
    classes: tuple[tuple[int, ...], tuple[int, ...]] = ((0, 6, 8), (1, 4, 7))
    """Digits of class 0 and of class 1."""
    split_seed: int = 2
    """Seed of the division of the digits into bank+train, val and test."""
    fractions: tuple[Positive, Positive, Positive] = (0.55, 0.15, 0.30)
    """Shares of the digits for bank+train, val and test."""
    rows: tuple[int, int] = (270, 341)
    """Texture rows: below the first for bank+train, from there to the second for val, the rest for test."""
    train: Count = 800
    """Training images of one draw."""
    correlation: Fraction = 0.95
    """Share of the training images whose place agrees with their class."""
    balanced: Count = 800
    """Images of a balanced split with the training digits: for probes of the backbone, never for fine-tuning."""
    val: Count = 600
    """Validation images of one draw, all groups equal."""
    test: Count = 1600
    """Test images, all groups equal, shared by all draws."""
    draws: Count = 5
    """Number of independent draws of train and val; replicate r of an experiment uses draw r modulo this number."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if set(self.classes[0]) & set(self.classes[1]) or not (self.classes[0] and self.classes[1]):
            raise ValueError("classes must name two disjoint, non-empty sets of digits")
        if any(not 0 <= digit <= 9 for digits in self.classes for digit in digits):
            raise ValueError("classes must name digits 0..9")
        if abs(sum(self.fractions) - 1) > 1e-9:
            raise ValueError(f"fractions must sum to 1, not {sum(self.fractions)}")
        if not self.scene.size < self.rows[0] < self.rows[1] - self.scene.size < 512 - 2 * self.scene.size:
            raise ValueError("rows must leave each split more texture rows (of 512) than a scene is high")
        for name in ("balanced", "val", "test"):
            if getattr(self, name) % 4:
                raise ValueError(f"{name} must be a multiple of 4, the number of groups")
        return self


class DigitBank(Section):
    """Unlabelled scenes for pre-training and for the Fisher: all ten digits, both places balanced, masks stored."""

    reader: Literal["digitscenes-bank"]
    """Names the kind of dataset."""
    scenes: Identifier
    """The digitscenes dataset whose bank+train digits and textures are used."""
    size: Count = 4000
    """Number of images."""


class Folder(Section):
    """Labelled images in a folder with a metadata.csv, the on-disk format of Waterbirds.

    `metadata.csv` has a line an image: `img_filename` (relative to the folder), `split` (train, val, test or 0, 1, 2), `y`
    (class) and `a` or `place` (attribute), both integers from 0.
    """

    reader: Literal["folder"]
    """Names the kind of dataset."""
    folder: str
    """The folder, relative to the root folder. Run `anchored prepare NAME --force` after its content changed."""
    size: Count = 224
    """Side of the stored image, in pixels."""
    convention: Convention = "short-side"
    """How the square is cut from the image. group-dro and dfr: squashed to 256/224 of `size`, then the centre; kumar and
    short-side: the shorter side resized to `size` (bicubic), then the centre."""
    storage: Storage = "raw"
    """raw: one byte a channel, read as they lie; zstd: without loss in about 0.4 times the space, at half a millisecond of a CPU
    for each image that is read. The pixels, and with them all results, are the same."""


class ImageFolder(Section):
    """Unlabelled images in a folder, at any depth: a bank of your own, without masks."""

    reader: Literal["images"]
    """Names the kind of dataset."""
    folder: str
    """The folder, relative to the root folder. Run `anchored prepare NAME --force` after its content changed."""
    size: Count = 224
    """Side of the stored image, in pixels."""
    convention: Convention = "short-side"
    """How the square is cut from the image. group-dro and dfr: squashed to 256/224 of `size`, then the centre; kumar and
    short-side: the shorter side resized to `size` (bicubic), then the centre."""
    storage: Storage = "raw"
    """raw: one byte a channel, read as they lie; zstd: without loss in about 0.4 times the space, at half a millisecond of a CPU
    for each image that is read. The pixels, and with them all results, are the same."""
    limit: Count | None = None
    """Number of images, drawn by the dataset's seed; all where it is left out."""


BANKS = (DigitBank, ImageFolder)
Dataset = Annotated[DigitScenes | DigitBank | Folder | ImageFolder, Field(discriminator="reader")]
