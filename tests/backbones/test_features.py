"""What a backbone is fed."""

import numpy as np
import pytest
import torch
from torch import nn

from anchored.backbones import features as module
from anchored.backbones.features import features, normalise, stored_features, to_input

CPU = torch.device("cpu")
ENTRY = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
TIMM = {"architecture": {"family": "timm", "name": "vit_small_patch14_dinov2"}, "weights": None, "mean": None, "std": None}


@pytest.mark.parametrize("shape", [(5, 32, 24, 3), (1, 1, 1, 3)])
def test_input_is_the_normalised_image_bit_by_bit(shape):
    """Two ways to the same numbers: training normalises whole images, views and augmented images plane by plane."""
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = to_input(images, ENTRY, CPU)
    expected = normalise(torch.from_numpy(images).float().div_(255).permute(0, 3, 1, 2), ENTRY)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()


def test_channels_have_a_mean_and_a_spread_of_their_own():
    """Against the definition, in float64: a table of another order of channels is still a table."""
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 3), np.uint8)
    expected = (images / 255 - np.array(ENTRY["mean"])) / np.array(ENTRY["std"])
    assert np.allclose(to_input(images, ENTRY, CPU).permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_statistics_that_the_plan_leaves_out_are_the_model_s_own_for_images_as_for_views():
    """Fine-tuning and the Fisher must see the same inputs."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    found = to_input(pixels, TIMM, CPU)
    assert torch.equal(found, normalise(torch.from_numpy(pixels).float().div_(255).permute(0, 3, 1, 2), TIMM))
    assert torch.equal(found, to_input(pixels, ENTRY, CPU))  # DINOv2's are ImageNet's


def test_stored_images_become_floats_a_batch_at_a_time(monkeypatch):
    """The whole training split of CelebA would be 98 GB."""
    seen = []
    monkeypatch.setattr(module, "to_input", lambda part, *rest: seen.append(len(part)) or to_input(part, *rest))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), np.uint8)
    rows = np.array([7, 3, 9, 1, 10])
    found = stored_features(model, pixels, rows, ENTRY, CPU, batch=2)
    assert seen == [2, 2, 1]
    np.testing.assert_allclose(found, features(model, to_input(pixels[rows], ENTRY, CPU)), rtol=1e-5)
