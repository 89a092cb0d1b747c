"""Augmented squares against torchvision's own RandomResizedCrop and mirror, given the draws; and the draws' distribution."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from anchored.compat import prepare_torchvision
from anchored.data.augment import Augmentation
from anchored.plan.preprocessing import augmentation

prepare_torchvision()
from torchvision import transforms as published  # noqa: E402

CPU = torch.device("cpu")
COUNT = 4000
ALIKE = 1e-4
# get_transform_cub of DFR and group_DRO, get_transform_celebA of group_DRO.
RATIOS = {
    ("dfr", "scenes"): (0.75, 1.3333333333333333),
    ("dfr", "faces"): (0.75, 1.3333333333333333),
    ("group-dro", "scenes"): (0.75, 1.3333333333333333),
    ("group-dro", "faces"): (1.0, 1.3333333333333333),
}


@pytest.mark.parametrize("kind", RATIOS, ids="-".join)
def test_draws_have_the_distribution_of_torchvision(kind):
    """Area, ratio and place of the crop; a ratio that is uniform itself, not in its logarithm, prefers wide crops."""
    boxes, flips = Augmentation(augmentation(*kind)).draw(np.random.default_rng(1), COUNT, 224)
    assert boxes.shape == (COUNT, 1, 4)
    torch.manual_seed(1)
    blank = Image.new("RGB", (224, 224))
    drawn = [published.RandomResizedCrop.get_params(blank, [0.7, 1.0], list(RATIOS[kind])) for _ in range(COUNT)]
    for one, other in zip(_quantities(boxes[:, 0]), _quantities(np.array(drawn)), strict=True):
        assert stats.ks_2samp(one, other).pvalue > ALIKE
    assert stats.binomtest(int(flips.sum()), COUNT, 0.5).pvalue > ALIKE
    assert abs(np.corrcoef(flips[:, 0], boxes[:, 0, 1])[0, 1]) < 4.5 / np.sqrt(COUNT)


def _quantities(boxes):
    top, left, height, width = boxes.T
    return height * width, width / height, top / np.maximum(224 - height, 1), left / np.maximum(224 - width, 1)


def test_pixels_are_those_of_torchvision(photographs, tv):
    """Image by image on PIL images, as the published code runs it, and on tensors, where not a single level may differ."""
    functional = published.functional
    images = np.repeat(photographs[:, 16:240, 16:240], 6, axis=0)
    augment = Augmentation(augmentation("dfr", "scenes"))
    boxes, flips = augment.draw(np.random.default_rng(3), len(images), 224)
    found = augment(images, np.random.default_rng(3), CPU)
    assert found.shape == (24, 3, 224, 224)
    assert found.dtype == torch.uint8
    bilinear = functional.InterpolationMode.BILINEAR
    for image, (box,), (flip,), result in zip(images, boxes.tolist(), flips, found, strict=True):
        on_pil = functional.resized_crop(Image.fromarray(image), *box, [224, 224], bilinear)
        on_tensor = tv.resized_crop(torch.from_numpy(image).permute(2, 0, 1), *box, [224, 224], bilinear, antialias=True)
        on_pil, on_tensor = (tv.hflip(each) if flip else each for each in (on_pil, on_tensor))
        assert torch.equal(result, on_tensor)
        difference = np.abs(result.permute(1, 2, 0).numpy() - np.asarray(on_pil).astype(int))
        # Ties after the first direction; more of them where the scale is a simple fraction.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.05


def test_the_generator_decides(photographs):
    """A resumed epoch must see the crops of the one that was killed."""
    augment = Augmentation(augmentation("dfr", "scenes"))
    first = augment(photographs, np.random.default_rng(5), CPU)
    assert torch.equal(first, augment(photographs, np.random.default_rng(5), CPU))
    assert not torch.equal(first, augment(photographs, np.random.default_rng(6), CPU))


def test_none_is_no_step():
    assert augmentation("none", "scenes") == []
