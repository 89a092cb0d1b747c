"""Random views of bank images: background swap, crop and resize, colour, blur; drawn in numpy, applied in batches in torch.

Drawing is separate from applying so that a view can belong to an image (the Fisher: one generator an image, the result does
not depend on batches or shards) or to a step (pre-training: one generator a step, fast).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anchored.data.draws import Drawn
from anchored.data.store import Store

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Draws(Drawn):
    """The random numbers of V views of B images; every array starts with (B, V)."""

    swap: NDArray[np.bool_]
    background: NDArray[np.int64]
    side: NDArray[np.float32]
    centre: NDArray[np.float32]
    flip: NDArray[np.bool_]
    contrast: NDArray[np.float32]
    brightness: NDArray[np.float32]
    grey: NDArray[np.bool_]
    blur: NDArray[np.bool_]


def draw(rng: np.random.Generator, count: int, policy: Mapping[str, Any], bank: int) -> Draws:
    """Random numbers for all views of `count` images.

    Args:
        rng: source of randomness.
        count: images B.
        policy: `views` of the plan.
        bank: number of images whose backgrounds may be swapped in.
    """
    globals_, views = policy["global_crops"], policy["global_crops"] + policy["local_crops"]
    shape = (count, views)
    low, high = np.array([policy["global_scale"]] * globals_ + [policy["local_scale"]] * (views - globals_)).T
    side = np.sqrt(rng.uniform(low, high, shape))
    half = rng.uniform(-1, 1, (*shape, 2))
    return Draws(
        swap=rng.random(shape) < policy["background_swap"],
        background=rng.integers(0, bank, shape),
        side=side.astype(np.float32),
        # The crop stays inside the image: its centre lies within 1 - side of the middle, in units of half the image.
        centre=(half * (1 - side[..., None])).astype(np.float32),
        flip=rng.random(shape) < policy["flip"],
        contrast=rng.uniform(1 - policy["contrast"], 1 + policy["contrast"], shape).astype(np.float32),
        brightness=rng.uniform(-policy["brightness"], policy["brightness"], (*shape, 3)).astype(np.float32),
        grey=rng.random(shape) < policy["grey"],
        blur=rng.random(shape) < policy["blur"],
    )


class ViewMaker:
    """Applies draws to the images of a bank.

    Args:
        store: the bank.
        policy: `views` of the plan.
        device: where views are made.

    Raises:
        InputError: the policy swaps backgrounds and the bank has no masks.
    """

    def __init__(self, store: Store, policy: Mapping[str, Any], device: torch.device) -> None:
        self._policy = policy
        self._device = device
        self._images = store.layer("image")
        swaps = policy["background_swap"] > 0
        self._masks = store.layer("mask") if swaps else None
        self._backgrounds = store.layer("background") if swaps else None

    def draw(self, rng: np.random.Generator, rows: NDArray[np.int64]) -> Draws:
        """Random numbers for all views of the bank images `rows`."""
        return draw(rng, len(rows), self._policy, len(self._images))

    def __call__(self, rows: NDArray[np.int64], draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Views of the bank images `rows`.

        Returns:
            global views (B, G, 3, S, S) and local views (B, L, 3, s, s) or None, float in [0, 1] before normalisation.
        """
        globals_ = self._policy["global_crops"]
        images, size = self._tensor(self._images[rows]).float(), self._images.shape[1]
        large = self._views(images, rows, draws.views(0, globals_), size)
        if not self._policy["local_crops"]:
            return large, None
        return large, self._views(images, rows, draws.views(globals_, None), self._policy["local_size"])

    def _views(self, images: Tensor, rows: NDArray[np.int64], draws: Draws, size: int) -> Tensor:
        count, views = draws.side.shape
        pixels = self._pixels(images, rows, draws)
        grid = self._tensor(np.where(draws.flip, -1, 1).astype(np.float32) * draws.side)
        theta = torch.zeros(count, views, 2, 3, device=self._device)
        theta[..., 0, 0] = grid
        theta[..., 1, 1] = self._tensor(draws.side)
        theta[..., 2] = self._tensor(draws.centre)
        where = F.affine_grid(theta.flatten(0, 1), [count * views, 3, size, size], align_corners=False)
        cropped = F.grid_sample(pixels.flatten(0, 1), where, padding_mode="border", align_corners=False)
        return self._colour(cropped, draws).unflatten(0, (count, views))

    def _pixels(self, images: Tensor, rows: NDArray[np.int64], draws: Draws) -> Tensor:
        """Scenes (B, V, 3, H, W) in [0, 1] of `images` (B, H, W, 3), the background swapped where the draws say so."""
        images = images[:, None].expand(-1, draws.side.shape[1], -1, -1, -1)
        if self._masks is not None and self._backgrounds is not None and draws.swap.any():
            keep = 1 - self._tensor(self._masks[rows]).float()[:, None] / 255
            own = self._tensor(self._backgrounds[rows]).float()[:, None]
            flat = self._backgrounds[draws.background.ravel()]
            other = self._tensor(flat).float().unflatten(0, draws.background.shape)
            swap = self._tensor(draws.swap)[..., None, None, None]
            images = torch.where(swap, images + keep * (other - own), images)
        return images.permute(0, 1, 4, 2, 3).clamp(0, 255) / 255

    def _colour(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Contrast around the image's mean, a shift per channel, grey, blur; pixels (B*V, 3, s, s)."""
        mean = pixels.mean((1, 2, 3), keepdim=True)
        contrast = self._tensor(draws.contrast).flatten()[:, None, None, None]
        shift = self._tensor(draws.brightness).flatten(0, 1)[:, :, None, None]
        pixels = (pixels - mean) * contrast + mean + shift
        luma = (pixels * torch.tensor(_LUMA, device=self._device)[:, None, None]).sum(1, keepdim=True)
        pixels = torch.where(self._tensor(draws.grey).flatten()[:, None, None, None], luma, pixels)
        chosen = self._tensor(draws.blur).flatten()
        if chosen.any():
            padded = F.pad(pixels[chosen], (1, 1, 1, 1), mode="replicate")
            kernel = torch.tensor([0.25, 0.5, 0.25], device=self._device)
            weight = torch.outer(kernel, kernel).expand(3, 1, 3, 3)
            pixels = pixels.clone()
            pixels[chosen] = F.conv2d(padded, weight, groups=3)
        return pixels.clamp(0, 1)

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
