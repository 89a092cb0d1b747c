"""What a backbone is fed."""

import numpy as np
import pytest
import torch

from anchored.backbones.features import normalise, to_input

ENTRY = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize("shape", [(5, 32, 24, 3), (1, 1, 1, 3)])
def test_input_is_the_normalised_image_bit_by_bit(shape):
    """Two ways to the same numbers: training normalises whole images, views and augmented images plane by plane."""
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = to_input(images, ENTRY, torch.device("cpu"))
    expected = normalise(torch.from_numpy(images).float().div_(255).permute(0, 3, 1, 2), ENTRY)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()


def test_channels_have_a_mean_and_a_spread_of_their_own():
    """Against the definition, in float64: a table of another order of channels is still a table."""
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 3), np.uint8)
    expected = (images / 255 - np.array(ENTRY["mean"])) / np.array(ENTRY["std"])
    assert np.allclose(to_input(images, ENTRY, torch.device("cpu")).permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)
