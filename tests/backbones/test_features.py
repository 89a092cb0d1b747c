"""From stored pixels to features."""

import numpy as np
import torch
from torch import nn

from anchored.backbones import features as module
from anchored.backbones.features import features, normalise, stored_features, to_input

CPU = torch.device("cpu")
TIMM = {"architecture": {"family": "timm", "name": "vit_small_patch14_dinov2"}, "weights": None, "mean": None, "std": None}


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_whole_images_are_normalised_as_views_are():
    """Fine-tuning and the Fisher must see the same inputs; without numbers in the plan, both ask timm for the model's own."""
    pixels = images(3)
    expected = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, TIMM)
    torch.testing.assert_close(to_input(pixels, TIMM, CPU), expected)
    # Noise around 0.5 with the mean and deviation of ImageNet.
    assert abs(float(expected.mean()) - (0.5 - 0.449) / 0.226) < 0.1


def test_stored_images_become_floats_a_batch_at_a_time(monkeypatch):
    """The whole training split of CelebA would be 98 GB."""
    seen = []
    make = module.to_input
    monkeypatch.setattr(module, "to_input", lambda part, *rest: seen.append(len(part)) or make(part, *rest))
    entry = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    model, pixels, rows = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), images(11), np.array([7, 3, 9, 1, 10])
    found = stored_features(model, pixels, rows, entry, CPU, batch=2)
    assert seen == [2, 2, 1]
    np.testing.assert_allclose(found, features(model, make(pixels[rows], entry, CPU)), rtol=1e-5)
