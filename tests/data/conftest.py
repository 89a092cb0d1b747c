"""Photographs that packages carry, for tests of transforms: noise has neither edges nor flat colour."""

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def photographs() -> NDArray[np.uint8]:
    """Four colour photographs (4, 256, 256, 3), uint8: the shorter side resized, the centre cut out."""
    from PIL import Image
    from skimage import data

    from anchored.plan.preprocessing import transform
    from anchored.readers.preprocess import preprocess

    steps = transform("short-side", "scenes", 256)
    names = ("astronaut", "chelsea", "coffee", "rocket")
    return np.stack([preprocess(Image.fromarray(getattr(data, name)()), steps) for name in names])


@pytest.fixture(scope="session")
def tv():
    """torchvision's functional transforms on tensors and PIL images, one image and one parameter a call: the oracle."""
    from anchored.compat import prepare_torchvision

    prepare_torchvision()
    import torchvision.transforms.v2.functional as functional

    return functional
