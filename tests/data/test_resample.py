"""Batched crops, bicubic and bilinear, against torchvision's resized_crop and Pillow's resize, one view at a time."""

import numpy as np
import pytest
import torch
from PIL import Image

from anchored.data.resample import crop, crop_each, crop_together

# Larger and smaller than the result, both at once, the whole image, a corner, a line, a pixel.
BOXES = [[0, 0, 256, 256], [28, 29, 228, 225], [10, 200, 100, 56], [156, 0, 100, 255], [0, 255, 256, 1], [77, 3, 1, 1]]
SIZE = 96


@pytest.fixture(scope="module")
def images(photographs):
    return torch.from_numpy(photographs)


def boxes_and_flips(images):
    boxes = torch.tensor(BOXES).expand(len(images), -1, -1).contiguous()
    return boxes, (torch.arange(boxes.shape[0] * boxes.shape[1]) % 3 == 0).view(boxes.shape[:2])


FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize("way", [crop_each, crop_together])
def test_crops_are_those_of_torchvision(images, tv, way, filter_):
    """Grid sampling would alias; a crop off by half a pixel or mirrored before it is cut would show here as whole levels."""
    boxes, flips = boxes_and_flips(images)
    found = way(images, boxes, flips, SIZE, filter_)
    mode = tv.InterpolationMode(filter_)
    assert found.shape == (4, len(BOXES), 3, SIZE, SIZE)
    assert found.dtype == torch.uint8
    for number, image in enumerate(images):
        for view, (box, flip) in enumerate(zip(boxes[number].tolist(), flips[number], strict=True)):
            expected = tv.resized_crop(image.permute(2, 0, 1), *box, [SIZE, SIZE], mode, antialias=True)
            expected = tv.hflip(expected) if flip else expected
            difference = (found[number, view].int() - expected.int()).abs()
            # Both round to levels after each direction; torch's kernel has weights of 16 bits.
            assert difference.max() <= (0 if way is crop_each else 2), box
            assert (difference > 0).float().mean() < 0.02, box


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize("way", [crop_each, crop_together])
def test_crops_are_those_of_pillow(images, way, filter_):
    """What DINO was trained with, and DFR's classifiers. Pillow chooses which direction goes first: a few pixels round another
    way."""
    boxes, flips = boxes_and_flips(images)
    found = way(images, boxes, torch.zeros_like(flips), SIZE, filter_)
    for number, image in enumerate(images):
        for view, (top, left, height, width) in enumerate(BOXES):
            window = Image.fromarray(image.numpy()).crop((left, top, left + width, top + height))
            expected = np.asarray(window.resize((SIZE, SIZE), FILTERS[filter_])).astype(int)
            difference = np.abs(found[number, view].permute(1, 2, 0).numpy() - expected)
            assert difference.mean() < 0.2, (top, left, height, width)
            assert (difference > 1).mean() < 0.005, (top, left, height, width)


def test_the_cpu_takes_the_kernel_of_its_own(images):
    """The products round some ties the other way: a view must not change with the way that its batch was cropped."""
    boxes, flips = boxes_and_flips(images)
    assert torch.equal(crop(images, boxes, flips, SIZE), crop_each(images, boxes, flips, SIZE))


@pytest.mark.parametrize("shape", [(1, 37, 91, 3), (2, 91, 37, 3)])
def test_images_need_not_be_square(shape, tv):
    """Height and width exchanged would pass every test on squares."""
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    boxes = torch.tensor([[[2, 3, 30, 20]]]).expand(shape[0], 1, 4)
    flips = torch.zeros(shape[0], 1, dtype=torch.bool)
    for way in (crop_each, crop_together):
        for image, found in zip(images, way(images, boxes, flips, 24), strict=True):
            expected = tv.resized_crop(image.permute(2, 0, 1), 2, 3, 30, 20, [24, 24], tv.InterpolationMode.BICUBIC, antialias=True)
            assert (found[0].int() - expected.int()).abs().max() <= 1
