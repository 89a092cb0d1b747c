"""DINO's multi-crop views (Caron et al. 2021): drawn in numpy for each image, applied in batches in torch.

    crop, resized (bicubic, anti-aliased), mirrored -> colour jitter in random order -> grey -> blur -> solarize

The published transform works on one PIL image at a time. Here every operation takes a parameter per view, so that all views of
a batch go through it at once, on the device; given the same parameters the pixels are those of PIL and torchvision up to the
rounding to 8 bits that PIL does after each operation, and the parameters have the distributions of torchvision's transforms.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchored.data.draws import Drawn
from anchored.data.feed import to_device
from anchored.data.photometric import ADJUSTMENTS, blur, grey, solarize
from anchored.data.resample import crop
from anchored.data.store import Store

_ATTEMPTS = 10
# Values of a part on the CPU: passes over it stay inside the cache.
_CPU_PART = 1 << 18


@dataclass(frozen=True)
class DinoDraws(Drawn):
    """The random numbers of V views of B images; every array starts with (B, V)."""

    box: NDArray[np.int64]
    """(B, V, 4): top, left, height, width."""
    flip: NDArray[np.bool_]
    jitter: NDArray[np.bool_]
    order: NDArray[np.int64]
    """(B, V, 4): numbers of `photometric.ADJUSTMENTS` in the order of their application."""
    factors: NDArray[np.float32]
    """(B, V, 4): of brightness, contrast, saturation, hue."""
    grey: NDArray[np.bool_]
    blur: NDArray[np.bool_]
    sigma: NDArray[np.float32]
    solarize: NDArray[np.bool_]


def draw_dino(rng: np.random.Generator, sizes: NDArray[np.int64], policy: Mapping[str, Any]) -> DinoDraws:
    """Random numbers for all views of B images.

    Args:
        rng: source of randomness.
        sizes: (B, 2) heights and widths of the images.
        policy: `views` of the plan, recipe dino.
    """
    globals_, views = policy["global_crops"], policy["global_crops"] + policy["local_crops"]
    shape = (len(sizes), views)

    def per_view(first: Any, other: Any, local: Any) -> NDArray:
        return np.array([first] + [other] * (globals_ - 1) + [local] * (views - globals_))

    def factors(width: float, middle: float) -> NDArray:
        return rng.uniform(max(middle - width, middle - 1), middle + width, shape)

    scale = per_view(policy["global_scale"], policy["global_scale"], policy["local_scale"])
    return DinoDraws(
        box=draw_boxes(rng, sizes, scale, policy["ratio"]),
        flip=rng.random(shape) < policy["flip"],
        jitter=rng.random(shape) < policy["jitter"],
        order=rng.permuted(np.broadcast_to(np.arange(4), (*shape, 4)), axis=-1),
        factors=np.stack(
            [
                factors(policy["brightness"], 1),
                factors(policy["contrast"], 1),
                factors(policy["saturation"], 1),
                factors(policy["hue"], 0),
            ],
            axis=-1,
        ).astype(np.float32),
        grey=rng.random(shape) < policy["grey"],
        blur=rng.random(shape) < per_view(*policy["blur"]),
        sigma=rng.uniform(policy["blur_sigma"][0], policy["blur_sigma"][1], shape).astype(np.float32),
        solarize=rng.random(shape) < per_view(0.0, policy["solarize"], 0.0),
    )


def draw_boxes(rng: np.random.Generator, sizes: NDArray, scale: NDArray, ratio: tuple[float, float]) -> NDArray[np.int64]:
    """Boxes (B, V, 4) with the distribution of torchvision's RandomResizedCrop.

    Up to ten attempts at an area (uniform) and an aspect ratio (uniform in its logarithm); the first that fits inside the
    image, at a uniform place; where none does, the largest central box whose ratio is within bounds.

    Args:
        rng: source of randomness.
        sizes: (B, 2) heights and widths of the images.
        scale: (V, 2) lowest and highest share of the area.
        ratio: lowest and highest width / height.
    """
    shape = (len(sizes), len(scale), _ATTEMPTS)
    height, width = sizes.T[:, :, None]
    area = rng.uniform(scale[:, :1], scale[:, 1:], shape) * (height * width)[..., None]
    aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), shape))
    widths, heights = np.rint(np.sqrt(area * aspect)).astype(int), np.rint(np.sqrt(area / aspect)).astype(int)
    fits = (widths > 0) & (widths <= width[..., None]) & (heights > 0) & (heights <= height[..., None])
    first = fits.argmax(-1)[..., None]
    wide, high = (np.take_along_axis(each, first, -1)[..., 0] for each in (widths, heights))
    within = np.clip(width / height, *ratio)
    central_wide = np.minimum(width, np.rint(height * within).astype(int))
    central_high = np.minimum(height, np.rint(width / within).astype(int))
    found = fits.any(-1)
    wide, high = np.where(found, wide, central_wide), np.where(found, high, central_high)
    top, left = rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1)
    top, left = np.where(found, top, (height - high) // 2), np.where(found, left, (width - wide) // 2)
    return np.stack([top, left, high, wide], axis=-1)


class DinoViewMaker:
    """Applies draws to the images of a bank.

    Args:
        store: the bank.
        policy: `views` of the plan, recipe dino.
        device: where views are made.
    """

    def __init__(self, store: Store, policy: Mapping[str, Any], device: torch.device) -> None:
        self._policy = policy
        self._device = device
        self._images = store.layer("image")

    def draw(self, rng: np.random.Generator, rows: NDArray[np.int64]) -> DinoDraws:
        """Random numbers for all views of the bank images `rows`."""
        return draw_dino(rng, np.broadcast_to(self._images.shape[1:3], (len(rows), 2)), self._policy)

    def __call__(self, rows: NDArray[np.int64], draws: DinoDraws) -> tuple[Tensor, Tensor | None]:
        """Views of the bank images `rows`.

        Returns:
            global views (B, G, 3, S, S) and local views (B, L, 3, s, s) or None, float in [0, 1] before normalisation.
        """
        images, globals_ = to_device(self._images[rows], self._device), self._policy["global_crops"]
        large = apply(images, draws.views(0, globals_), self._policy["global_size"])
        if not self._policy["local_crops"]:
            return large, None
        return large, apply(images, draws.views(globals_, None), self._policy["local_size"])


def apply(images: Tensor, draws: DinoDraws, size: int) -> Tensor:
    """Views (B, V, 3, size, size) in [0, 1] of images (B, H, W, 3) uint8, on their device."""
    crops = crop(images, to_device(draws.box, images.device), to_device(draws.flip, images.device), size)
    flat = crops.flatten(0, 1)
    out = torch.empty(flat.shape, device=flat.device)
    step = max(_CPU_PART // flat[0].numel(), 1) if flat.device.type == "cpu" else len(flat)
    each = DinoDraws(**{name: values.reshape(-1, *values.shape[2:]) for name, values in vars(draws).items()})
    for start in range(0, len(flat), step):
        part = slice(start, start + step)
        out[part] = _colour(flat[part].float().div_(255), DinoDraws(**{name: value[part] for name, value in vars(each).items()}))
    return out.unflatten(0, crops.shape[:2])


def _colour(pixels: Tensor, draws: DinoDraws) -> Tensor:
    """All that follows the crop, on views (N, 3, S, S) and draws of leading dimension N."""
    for position in range(len(ADJUSTMENTS)):
        for number, adjust in enumerate(ADJUSTMENTS):
            chosen = draws.jitter & (draws.order[:, position] == number)
            factor = to_device(draws.factors[chosen, number, None, None, None], pixels.device)
            pixels = _where(chosen, pixels, adjust, factor)
    pixels = _where(draws.grey, pixels, lambda part: grey(part).repeat(1, 3, 1, 1))
    pixels = _where(draws.blur, pixels, blur, torch.from_numpy(draws.sigma[draws.blur]))
    return _where(draws.solarize, pixels, solarize)


def _where(chosen: NDArray[np.bool_], pixels: Tensor, change: Callable[..., Tensor], *parameters: Tensor) -> Tensor:
    """`pixels` with the chosen views changed; the choice is known on the CPU, so that no device has to wait for it."""
    if not chosen.any():
        return pixels
    if chosen.all():
        return change(pixels, *parameters)
    index = to_device(np.flatnonzero(chosen), pixels.device)
    return pixels.index_copy_(0, index, change(pixels.index_select(0, index), *parameters))
