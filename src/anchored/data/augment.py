"""Random changes of training images: the crop and the mirror of the DFR and group DRO code bases, in batches.

They are cut from the stored square. The published code cuts from the file, and its augmented images therefore differ from these:

- what the convention cuts off is not seen: the margin of 16 of 256 pixels (scenes), all but 178 lines of a face (group-dro);
- shares of the area and ratios are those of the square; of a file that the convention squashes they would be its own;
- pixels are interpolated twice, once into the square and once out of it, each time bilinearly.

The distribution of the boxes is torchvision's, and given a box the pixels are those of its resized_crop on the square.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchored.data.dino_views import draw_boxes
from anchored.data.feed import to_device
from anchored.data.resample import crop


class Augmentation:
    """Applies the steps of `plan.preprocessing.augmentation` to batches.

    Args:
        steps: a `random-crop` and a `mirror`.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        self._crop, self._mirror = steps
        assert (self._crop["step"], self._mirror["step"]) == ("random-crop", "mirror")

    def draw(self, rng: np.random.Generator, count: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Boxes (B, 1, 4), top, left, height and width, and whether to mirror (B, 1), for B images of side `size`."""
        scale = np.array([self._crop["scale"]])
        boxes = draw_boxes(rng, np.full((count, 2), size), scale, self._crop["ratio"])
        return boxes, rng.random((count, 1)) < self._mirror["probability"]

    def __call__(self, images: NDArray[np.uint8], rng: np.random.Generator, device: torch.device) -> Tensor:
        """Images (B, S, S, 3) uint8, changed at random: (B, 3, S, S) uint8 on `device`."""
        boxes, flips = self.draw(rng, len(images), images.shape[1])
        pixels, where, mirrored = (to_device(values, device) for values in (images, boxes, flips))
        return crop(pixels, where, mirrored, images.shape[1], self._crop["filter"])[:, 0]
