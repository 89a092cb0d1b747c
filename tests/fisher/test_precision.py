"""The error of an arithmetic, tensor by tensor."""

import pytest
import torch

from anchored.device import arithmetic
from anchored.errors import ConfigError
from anchored.fisher.precision import in_words, relative_errors


def test_the_error_is_relative_to_each_tensor():
    """One number for all tensors would be that of the largest."""
    exact = {"large": torch.tensor([3e6, 4e6]), "small": torch.tensor([3e-6, 4e-6]), "none": torch.zeros(2)}
    found = {"large": exact["large"] * 1.01, "small": exact["small"] * 1.5, "none": torch.zeros(2)}
    errors = relative_errors(found, exact)
    assert errors == pytest.approx({"large": 0.01, "small": 0.5, "none": 0.0}, rel=1e-5)
    assert in_words(errors) == "worst 5.0e-01 (small), median 1.0e-02"


def test_tf32_without_a_gpu_is_refused():
    """It would be measured in fp32 and called TF32."""
    with pytest.raises(ConfigError, match="precision tf32 is an arithmetic of NVIDIA"), arithmetic("tf32", torch.device("cpu")):
        pass


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_what_fp32_means_on_a_gpu_is_set_and_set_back(precision):
    """By default torch computes convolutions in TF32 there."""
    torch.backends.cudnn.allow_tf32 = True
    with arithmetic(precision, torch.device("cuda")):
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
