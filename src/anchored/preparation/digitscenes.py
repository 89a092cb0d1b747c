"""DigitScenes: real handwritten digits pasted on real photographs of grass and gravel.

Digits: scikit-learn's `load_digits` (1,797 images of 8x8, UCI); textures: scikit-image's `grass` and `gravel` (512x512
photographs). Class y tells loops (0, 6, 8) from strokes (1, 4, 7), attribute a tells gravel from grass; in the training
split the place agrees with the class in a share `correlation` of the images.

Digits and texture rows are disjoint between bank+train, val and test. A scene is

    image = (1 - alpha) * background + alpha * tint,   background = (0.5 + texture * z + place_tint * colour) * gain

with z the standardised photograph. Every number comes from one seeded generator, so a rebuild gives the same bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("bank", "val", "test")
PLACES = ("grass", "gravel")
PLACE_COLOURS = np.array([(-0.08, 0.12, -0.12), (0.08, -0.04, 0.10)])
SOURCES = {
    "digits": "Optical Recognition of Handwritten Digits, UCI, as shipped in scikit-learn (BSD-3-Clause)",
    "textures": "photographs 'grass' and 'gravel' as shipped in scikit-image (CC0)",
}
FACTS = {"source": {"name": "DigitScenes (embedded)"}, "sources": SOURCES}
"""Entries of a manifest: the name that tables print, and the parts with their licences."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes: `images` (N, S, S, 3), `masks` (N, S, S, 1) and `backgrounds` (N, S, S, 3), all uint8."""

    images: Pixels
    masks: Pixels
    backgrounds: Pixels


def build_labelled(entry: Mapping[str, Any]) -> tuple[Pixels, dict[str, NDArray]]:
    """All labelled splits of a plan entry.

    Returns:
        images (N, S, S, 3) uint8, and index columns of length N: split, draw (-1: shared by all draws), y, a, source (index
        of the digit in scikit-learn's set).
    """
    painter = _Painter(entry)
    images: list[Pixels] = []
    columns: dict[str, list[NDArray]] = {name: [] for name in ("split", "draw", "y", "a", "source")}
    for split, draw, y, a in _labels(entry):
        rng = np.random.default_rng([entry["seed"], _split_number(split), draw + 1])
        order = rng.permutation(len(y))
        y, a = y[order], a[order]
        source = painter.choose_digits("bank" if split in ("train", "balanced") else split, y, rng)
        images.append(painter.paint("bank" if split in ("train", "balanced") else split, source, a, rng).images)
        for name, values in {"y": y, "a": a, "source": source}.items():
            columns[name].append(values)
        columns["split"].append(np.full(len(y), split))
        columns["draw"].append(np.full(len(y), draw))
    return np.concatenate(images), {name: np.concatenate(parts) for name, parts in columns.items()}


def build_bank(entry: Mapping[str, Any]) -> Scenes:
    """The unlabelled bank of a plan entry: all ten digits and both places, balanced in expectation."""
    painter = _Painter(entry["scenes"])
    rng = np.random.default_rng([entry["seed"]])
    source = rng.choice(painter.split_digits["bank"], size=entry["size"])
    return painter.paint("bank", source, rng.integers(0, 2, size=entry["size"]), rng)


def group_names(entry: Mapping[str, Any]) -> dict[str, str]:
    """Readable names of the groups g = 2 y + a."""
    classes = ["digits " + "/".join(map(str, digits)) for digits in entry["classes"]]
    return {str(2 * y + a): f"{classes[y]} on {PLACES[a]}" for y in (0, 1) for a in (0, 1)}


def _split_number(split: str) -> int:
    return ("train", "val", "test", "balanced").index(split)


def _labels(entry: Mapping[str, Any]) -> Iterator[tuple[str, int, NDArray, NDArray]]:
    """Split, draw, y and a of every part of the labelled dataset."""
    for draw in range(entry["draws"]):
        yield "train", draw, *_biased(entry["train"], entry["correlation"])
        yield "val", draw, *_balanced(entry["val"])
    yield "balanced", -1, *_balanced(entry["balanced"])
    yield "test", -1, *_balanced(entry["test"])


def _balanced(count: int) -> tuple[NDArray, NDArray]:
    group = np.repeat(np.arange(4), count // 4)
    return group // 2, group % 2


def _biased(count: int, correlation: float) -> tuple[NDArray, NDArray]:
    y = np.arange(count) % 2
    a = y.copy()
    for label in (0, 1):
        members = np.flatnonzero(y == label)
        a[members[: round(len(members) * (1 - correlation))]] = 1 - label
    return y, a


class _Painter:
    """Renders scenes of one dataset: holds its digits, its textures and their division into splits."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        digits, self._labels = _digits()
        self._digits = digits
        self._scene = entry["scene"]
        self._classes = entry["classes"]
        order = np.random.default_rng(entry["split_seed"]).permutation(len(digits))
        bounds = np.cumsum([round(share * len(order)) for share in entry["fractions"][:2]])
        self.split_digits = dict(zip(SPLITS, np.split(order, bounds), strict=True))
        low, high = entry["rows"]
        self._rows = {"bank": (0, low), "val": (low, high), "test": (high, 512)}
        self._cut_outs: dict[tuple[int, int], NDArray] = {}

    def choose_digits(self, split: str, y: NDArray, rng: np.random.Generator) -> NDArray:
        """An index of a digit of the right class for each label, drawn with replacement from the split's digits."""
        pool = self.split_digits[split]
        candidates = [pool[np.isin(self._labels[pool], self._classes[label])] for label in (0, 1)]
        picks = [rng.choice(candidates[label], size=len(y)) for label in (0, 1)]
        return np.where(y == 0, picks[0], picks[1])

    def paint(self, split: str, source: NDArray, place: NDArray, rng: np.random.Generator) -> Scenes:
        """One scene for each digit index in `source` and place in `place`."""
        count, size = len(source), self._scene["size"]
        backgrounds = np.empty((count, size, size, 3))
        masks = np.zeros((count, size, size, 1))
        for number in range(count):
            backgrounds[number] = self._background(split, int(place[number]), rng)
            side = int(rng.integers(self._scene["digit"][0], self._scene["digit"][1] + 1))
            top, left = rng.integers(0, size - side + 1, size=2)
            masks[number, top : top + side, left : left + side, 0] = self._cut_out(int(source[number]), side)
        low, high = self._scene["tint"]
        spread = self._scene["tint_spread"]
        tints = rng.uniform(low, high, (count, 1, 1, 1)) + rng.uniform(-spread, spread, (count, 1, 1, 3))
        images = (1 - masks) * backgrounds + masks * np.clip(tints, 0, 1)
        return Scenes(_quantise(images), _quantise(masks), _quantise(backgrounds))

    def _background(self, split: str, place: int, rng: np.random.Generator) -> NDArray:
        scene, texture = self._scene, _textures()[place]
        size, (low, high) = scene["size"], self._rows[split]
        top = rng.integers(low, high - size + 1)
        left = rng.integers(0, texture.shape[1] - size + 1)
        patch = texture[top : top + size, left : left + size]
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
        coloured = 0.5 + scene["texture"] * patch[..., None] + scene["place_tint"] * PLACE_COLOURS[place]
        return np.clip(coloured * (1 + rng.uniform(-scene["gain"], scene["gain"], 3)), 0, 1)

    def _cut_out(self, source: int, side: int) -> NDArray:
        if (source, side) not in self._cut_outs:
            from skimage.transform import resize

            alpha = resize(self._digits[source], (side, side), order=3, mode="edge", anti_aliasing=False)
            self._cut_outs[source, side] = np.clip(alpha, 0, 1)
        return self._cut_outs[source, side]


def _quantise(values: NDArray) -> Pixels:
    return np.rint(values * 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _digits() -> tuple[NDArray, NDArray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images / 16.0, bunch.target


@lru_cache(maxsize=1)
def _textures() -> tuple[NDArray, NDArray]:
    from skimage import data

    raw = (data.grass().astype(np.float64), data.gravel().astype(np.float64))
    return tuple((texture - texture.mean()) / texture.std() for texture in raw)
