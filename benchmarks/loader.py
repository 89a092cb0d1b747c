"""Images per second that the ways to make DINO's views (2 of 224 and 8 of 96 pixels) reach, as ratios to the published one.

    python benchmarks/loader.py [--images 32] [--repeats 5] [--threads 1]

The reference goes through the images one by one with Pillow and torchvision, as the published code does, on images that lie
decoded in memory; a second line adds the decoding of a JPEG file, which packed images save. All ways run in one process, one
after the other and again, so that a busy machine slows all of them alike; the fastest run of each counts. kornia is measured
where it is installed (it is no dependency): its crops alias, and a batch shares one order of the colour operations, so it is
not the published transform. "crops as products" is what a GPU would run.
"""

import argparse
import io
import os
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import PIL
import torch
from machine import processor
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from skimage import data

from anchored.compat import prepare_torchvision
from anchored.data import dino_views
from anchored.data.dino_views import DinoViewMaker
from anchored.data.draws import join
from anchored.data.resample import crop_each, crop_together
from anchored.data.store import Store
from anchored.plan.preprocessing import transform
from anchored.plan.views import DinoViews
from anchored.readers.preprocess import preprocess

Views = list[torch.Tensor]
SIDE = 256


def main() -> None:
    """Prints one line a way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prepare_torchvision()
    policy = DinoViews(recipe="dino").model_dump(mode="json")
    names, steps = ("astronaut", "chelsea", "coffee", "rocket"), transform("short-side", "scenes", SIDE)
    photographs = [preprocess(Image.fromarray(getattr(data, name)()), steps) for name in names]
    images = np.stack([photographs[number % 4] for number in range(options.images)])
    torch.manual_seed(0)
    ways = {
        "Pillow + torchvision, one by one": pillow(images, policy),
        "the same, with decoding": pillow(images, policy, decode=True),
        "torchvision v2 on tensors, one by one": torchvision_v2(images, policy),
        **kornia_batched(images, policy),
        "anchored, crops as products": anchored(images, policy, crop_together),
        "anchored": anchored(images, policy, crop_each),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    print(f"{processor()}, {options.threads} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, "
          f"torchvision {metadata.version('torchvision')}, Pillow {PIL.__version__}")  # fmt: skip
    print(f"{options.images} images of {SIDE} x {SIDE}, best of {options.repeats}")
    reference = min(next(iter(seconds.values())))
    for name, found in seconds.items():
        print(f"{name:40} {options.images / min(found):8.1f} images/s {reference / min(found):6.2f} x")


def anchored(images: NDArray[np.uint8], policy: dict[str, Any], crop: Callable) -> Callable[[], object]:
    """Draws of each image from a generator of its own, application in one batch."""
    maker = DinoViewMaker(Store("photographs", images, None, {"layers": {"image": [0, 3]}}), policy, torch.device("cpu"))
    rows = np.arange(len(images))

    def make() -> object:
        dino_views.crop = crop
        draws = [maker.draw(np.random.default_rng([0, row]), rows[row : row + 1]) for row in rows]
        return maker(rows, join(draws))

    return make


def pillow(images: NDArray[np.uint8], policy: dict[str, Any], *, decode: bool = False) -> Callable[[], object]:
    """The published transform: torchvision's classes on PIL images, Pillow's blur and solarize."""
    from torchvision import transforms as tv

    def sometimes(probability: float, change: Callable) -> Callable:
        return tv.RandomApply([tv.Lambda(change)], p=probability)

    def blurred(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(np.random.uniform(*policy["blur_sigma"]))))

    def transform(size: int, scale: tuple[float, float], blur: float, solarize: float) -> Callable:
        return tv.Compose([*_shared(tv, policy, size, scale), sometimes(blur, blurred), sometimes(solarize, ImageOps.solarize),
                           tv.ToTensor()])  # fmt: skip

    transforms = _each_view(policy, transform)
    pictures: list[Any] = [Image.fromarray(image) for image in images]
    if decode:
        pictures = [_jpeg(picture) for picture in pictures]

    def make() -> list[Views]:
        opened = (Image.open(io.BytesIO(each)).convert("RGB") if decode else each for each in pictures)
        return [[each(picture) for each in transforms] for picture in opened]

    return make


def torchvision_v2(images: NDArray[np.uint8], policy: dict[str, Any]) -> Callable[[], object]:
    """Torchvision's second generation on uint8 tensors; its blur is a sampled Gaussian of 13 pixels."""
    from torchvision.transforms import v2 as tv

    def transform(size: int, scale: tuple[float, float], blur: float, solarize: float) -> Callable:
        return tv.Compose([*_shared(tv, policy, size, scale), tv.RandomApply([tv.GaussianBlur(13, policy["blur_sigma"])], p=blur),
                           tv.RandomSolarize(128, p=solarize), tv.ToDtype(torch.float32, scale=True)])  # fmt: skip

    transforms = _each_view(policy, transform)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    return lambda: [[each(image) for each in transforms] for image in tensors]


def kornia_batched(images: NDArray[np.uint8], policy: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Kornia's augmentations, a batch at a time, each view with parameters of its own."""
    try:
        import kornia.augmentation as ka
    except ImportError:
        return {}

    def transform(size: int, scale: tuple[float, float], blur: float, solarize: float) -> Callable:
        return torch.nn.Sequential(
            ka.RandomResizedCrop((size, size), scale, policy["ratio"], resample="BICUBIC", cropping_mode="resample"),
            ka.RandomHorizontalFlip(p=policy["flip"]),
            ka.ColorJitter(*_jitter(policy), p=policy["jitter"]),
            ka.RandomGrayscale(p=policy["grey"]),
            ka.RandomGaussianBlur((13, 13), policy["blur_sigma"], p=blur),
            ka.RandomSolarize(0.0, 0.0, p=solarize),
        )

    transforms = _each_view(policy, transform)

    def make() -> list[torch.Tensor]:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return [each(pixels) for each in transforms]

    return {f"kornia {metadata.version('kornia')}, batched": make}


def _shared(tv: Any, policy: dict[str, Any], size: int, scale: tuple[float, float]) -> list[Any]:
    """What both generations of torchvision call alike."""
    from torchvision.transforms import InterpolationMode

    return [
        tv.RandomResizedCrop(size, scale, policy["ratio"], InterpolationMode.BICUBIC),
        tv.RandomHorizontalFlip(policy["flip"]),
        tv.RandomApply([tv.ColorJitter(*_jitter(policy))], p=policy["jitter"]),
        tv.RandomGrayscale(policy["grey"]),
    ]


def _jitter(policy: dict[str, Any]) -> tuple[float, float, float, float]:
    return policy["brightness"], policy["contrast"], policy["saturation"], policy["hue"]


def _each_view(policy: dict[str, Any], transform: Callable) -> list[Callable]:
    """A transform for each of the views."""
    first, other, local = policy["blur"]
    large, small = (policy["global_size"], policy["global_scale"]), (policy["local_size"], policy["local_scale"])
    return [transform(*large, first, 0.0), *[transform(*large, other, policy["solarize"])] * (policy["global_crops"] - 1),
            *[transform(*small, local, 0.0)] * policy["local_crops"]]  # fmt: skip


def _jpeg(image: Image.Image) -> bytes:
    """The image as a JPEG file of 500 pixels, a usual size in collections."""
    stream = io.BytesIO()
    image.resize((500, 500), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


if __name__ == "__main__":
    main()
