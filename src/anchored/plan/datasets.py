"""The datasets that a configuration can name: labelled ones, and unlabelled banks for pre-training and the Fisher."""

import difflib
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from anchored.plan.base import Count, Fraction, FractionRange, Identifier, NonNegative, Positive, Section
from anchored.plan.preprocessing import Convention, Kind, Storage


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


class _Files(Section):
    """Images in files."""

    reader: str
    """Names the kind of dataset."""
    folder: str
    """Where they lie, relative to the root folder. Image files are not watched: run `anchored prepare NAME --force` after they
    changed; `anchored prepare NAME --check` tells."""
    size: Count = 224
    """Side of the stored image, in pixels."""
    convention: Convention = "short-side"
    """How the square is cut from the image. group-dro and dfr: squashed to 256/224 of `size`, then the centre; kumar and
    short-side: the shorter side resized to `size` (bicubic), then the centre. Faces: group-dro keeps the centre 178 pixels, kumar
    squashes the whole image."""
    storage: Storage = "raw"
    """raw: one byte a channel, read as they lie; zstd: without loss in about 0.4 times the space, at half a millisecond of a CPU
    for each image that is read. The pixels, and with them all results, are the same."""


class _Grouped(_Files):
    """Labelled images in files."""

    unseen_groups: bool = False
    """Accept groups that val or test have and train lacks."""


class _Published(_Grouped):
    """A dataset with published group counts."""

    convention: Convention = "group-dro"
    """As in the other readers; group-dro is that of the first tables on this dataset."""
    published: bool = True
    """Refuse group counts that differ from the published ones: a table in a wrong row order trains without an error. Set it to
    false for a subset."""


class _Labelled(_Grouped):
    """Images with a table whose columns and labels are the user's."""

    image: str | None = None
    """Column of the image; found by its usual names where it is left out, like the next three."""
    label: str | None = None
    """Column of the class y. Labels may be any text; they are sorted (numbers by value) and numbered from 0."""
    attribute: str | None = None
    """Column of the attribute a; `-`: there is none, groups are the classes."""
    split: str | None = None
    """Column of the split: train, val, test, 0, 1, 2, or the like."""
    classes: tuple[str, ...] | None = None
    """Readable names of the classes, in the order of their numbers; the labels themselves where it is left out."""
    attributes: tuple[str, ...] | None = None
    """Readable names of the attribute's values, likewise."""
    faces: bool = False
    """Cut images as the convention cuts aligned faces: for other copies of CelebA."""


class Waterbirds(_Published):
    """Waterbirds as released by group DRO or by WILDS: a folder with `metadata.csv`, or the folder above it."""

    reader: Literal["waterbirds"]
    """Names the kind of dataset."""


class Celeba(_Published):
    """CelebA: `list_attr_celeba` and `list_eval_partition` as .csv or .txt, images as `img_align_celeba/` or a zip file.

    Zip files are read as they are; one file may hold lists and images.
    """

    reader: Literal["celeba"]
    """Names the kind of dataset."""
    target: str = "Blond_Hair"
    """The attribute that is the class y: one of the 40, or `all`: every one of them, a multi-label target, which no experiment
    can be trained on."""
    attribute: str = "Male"
    """The attribute a: one of the 40."""

    @model_validator(mode="after")
    def _attributes_exist(self) -> Self:
        for key in ("target", "attribute"):
            value = getattr(self, key)
            if value not in CELEBA_ATTRIBUTES and (key, value) != ("target", "all"):
                near = difflib.get_close_matches(value, CELEBA_ATTRIBUTES, n=1, cutoff=0.4)
                advice = f"did you mean '{near[0]}'?" if near else f"they are {', '.join(CELEBA_ATTRIBUTES)}."
                raise ValueError(f"{key} '{value}' is none of CelebA's 40 attributes; {advice}")
        if self.target == self.attribute:
            raise ValueError(f"target and attribute are both '{self.target}': groups need two")
        return self


class Folder(_Labelled):
    """Labelled images in a folder with a `metadata.csv`, such as the on-disk format of Waterbirds.

    The table has a line an image: `img_filename` (relative to the folder), `split`, `y` (class) and `a` or `place` (attribute).
    Without a table, the folders `train`, `val` and `test` must hold a folder of images for each class; set `attribute: "-"` then.
    """

    reader: Literal["folder"]
    """Names the kind of dataset."""


class Parquet(_Labelled):
    """Labelled images in parquet files, as mirrors on the Hugging Face hub hold them: one file, or a folder of them.

    The split comes from a column or else from the names of files and folders (`train-00000-of-00001.parquet`).
    """

    reader: Literal["parquet"]
    """Names the kind of dataset."""


class ImageFolder(_Files):
    """Unlabelled images, a bank of your own, without masks.

    A folder of images at any depth, a .tar or .zip file, a .parquet file, or a folder of .tar or .parquet files. Archives are
    read as they are; tar files must not be compressed.
    """

    reader: Literal["images"]
    """Names the kind of dataset."""
    faces: bool = False
    """Cut images as the convention cuts aligned faces: for other copies of CelebA."""
    limit: Count | None = None
    """Number of images, drawn by the dataset's seed; all where it is left out. The index lists them with their digests."""


class TrainingImages(Section):
    """The training images of a labelled dataset in files, without their labels: a bank where there is no other.

    Its validation and test images are left out: they stay unseen by pre-training and by the Fisher.
    """

    reader: Literal["training-images"]
    """Names the kind of dataset."""
    of: Identifier
    """The labelled dataset."""
    size: Count | None = None
    """Side of the stored image, in pixels; that of the dataset where it is left out."""
    convention: Convention | None = None
    """How the square is cut from the image; as in the dataset where it is left out."""
    storage: Storage = "raw"
    """As in the other readers."""
    limit: Count | None = None
    """Number of images, drawn by this bank's seed; all where it is left out."""


# In the order of the attribute file.
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose", "Black_Hair",
    "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair",
    "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face",
    "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair",
    "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip

BANKS = (DigitBank, ImageFolder, TrainingImages)
LABELLED_FILES = (Waterbirds, Celeba, Folder, Parquet)
Dataset = Annotated[
    DigitScenes | DigitBank | Waterbirds | Celeba | Folder | Parquet | ImageFolder | TrainingImages, Field(discriminator="reader")
]


def kind(dataset: Section) -> Kind:
    """What a dataset's images show: conventions treat faces in another way."""
    return "faces" if isinstance(dataset, Celeba) or getattr(dataset, "faces", False) else "scenes"


def multi_label(dataset: Section) -> bool:
    """Whether a dataset has many targets instead of one class: nothing can be trained or probed on it here."""
    return isinstance(dataset, Celeba) and dataset.target == "all"
