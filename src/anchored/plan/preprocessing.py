"""From an image file to the stored square: the conventions of the field, spelled out as steps.

Two published tables are comparable only if they cut their images alike: on CelebA the families differ by the crop of 178 pixels.
A plan holds the steps, so what `prepare` does can be read there and is part of the record.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Convention = Literal["group-dro", "dfr", "kumar", "short-side"]
Kind = Literal["scenes", "faces"]
Augmentation = Literal["none", "dfr", "group-dro"]
Storage = Literal["raw", "zstd"]

# Sagawa et al. 2020 and Kirichenko et al. 2023 enlarge by this before they cut the centre out.
_MARGIN = (256, 224)
# Side of the centre of CelebA's aligned images (218 x 178) that Sagawa et al. 2020 keep.
_FACE = 178


def transform(convention: Convention, kind: Kind, size: int) -> list[dict[str, Any]]:
    """The steps of a convention, in order; `size` is the side of the result.

    group-dro: scenes are resized to a square of 256/224 `size` (squashed), then the centre is cut out; faces lose all but the
        centre 178 pixels, which are resized. Sagawa et al. 2020; JTT, LISA, SubpopBench, WILDS (whose faces keep `size` 178).
    dfr: scenes as above, and faces likewise. Kirichenko et al. 2023, Izmailov et al. 2022, AFR.
    kumar: the shorter side of scenes is resized (bicubic), then the centre is cut out; faces are squashed. Kumar et al. 2022.
    short-side: kumar's scenes, for any images. Nothing is squashed.

    Steps: `resize` to (height, width); `resize-short`, the shorter side to `size`; `centre-crop` to a square, black outside of
    the image.
    """
    if convention == "group-dro" and kind == "faces":
        return [_crop(_FACE), _squash(size, "bilinear")]
    if convention in ("group-dro", "dfr"):
        return [_squash(size * _MARGIN[0] // _MARGIN[1], "bilinear"), _crop(size)]
    if convention == "kumar" and kind == "faces":
        return [_squash(size, "bilinear")]
    return [{"step": "resize-short", "size": size, "filter": "bicubic"}, _crop(size)]


def augmentation(name: Augmentation, kind: Kind) -> list[dict[str, Any]]:
    """The random steps of training images: those of `train_classifier.py --augment_data` (dfr), of `run_expt.py --augment_data`
    (group-dro), or none.

    Steps: `random-crop`, torchvision's RandomResizedCrop by share of the area and width / height; `mirror`, by probability.
    """
    if name == "none":
        return []
    # Aligned faces are higher than wide: group DRO does not squash them further in that direction.
    lowest = 1.0 if (name, kind) == ("group-dro", "faces") else 3 / 4
    crop = {"step": "random-crop", "scale": [0.7, 1.0], "ratio": [lowest, 4 / 3], "filter": "bilinear"}
    return [crop, {"step": "mirror", "probability": 0.5}]


def words(steps: Sequence[Mapping[str, Any]]) -> str:
    """The steps in one line, as tables name them: "256x256 bilinear, centre 224" (width x height)."""
    return ", ".join(_WORDS[step["step"]].format(**step) for step in steps)


_WORDS = {
    "resize": "{size[1]}x{size[0]} {filter}",
    "resize-short": "shorter side {size} {filter}",
    "centre-crop": "centre {size}",
    "random-crop": "random {scale[0]:g}-{scale[1]:g} of the area at {ratio[0]:.3g}-{ratio[1]:.3g} {filter}",
    "mirror": "mirrored {probability:g}",
}


def _squash(size: int, filter_: str) -> dict[str, Any]:
    return {"step": "resize", "size": [size, size], "filter": filter_}


def _crop(size: int) -> dict[str, Any]:
    return {"step": "centre-crop", "size": size}
