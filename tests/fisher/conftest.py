import pytest
import torch

from anchored.compat import prepare_torchvision

prepare_torchvision()


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
