"""The Triton kernel against the formula, in triton's interpreter on a CPU, and the choice between it and bmm."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anchored.errors import ConfigError, EnvironmentFailure
from anchored.fisher import kernels

SCRIPT = Path(__file__).with_name("kernel_in_interpreter.py")


def test_kernel_is_the_formula_in_every_shape():
    """One process for all cases: it starts torch and compiles nothing. It also compares the bits of two runs."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) > 10
    assert {name: error for name, error in errors.items() if not error < 1e-6} == {}


def gpu_tensor(dtype: torch.dtype = torch.float32):
    return SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0), dtype=dtype)


@pytest.fixture
def device_name(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Imaginary GPU")
    return "Imaginary GPU"


def test_unmeasured_devices_take_bmm(device_name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    assert kernels.outer_squares_kernel(gpu_tensor()) is None
    assert kernels.MEASURED_FASTER == {}, "an entry needs a measurement on that device: benchmarks/kernel.py"


def test_measured_devices_take_the_kernel(device_name: str, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("triton")
    monkeypatch.setitem(kernels.MEASURED_FASTER, device_name, 0.5)
    for value in ("", "auto", "triton"):
        monkeypatch.setenv(kernels.VARIABLE, value)
        assert kernels.outer_squares_kernel(gpu_tensor()) is not None
    monkeypatch.setenv(kernels.VARIABLE, "bmm")
    assert kernels.outer_squares_kernel(gpu_tensor()) is None


def test_kernel_is_never_used_for_float64_nor_on_a_cpu(device_name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(kernels.VARIABLE, "triton")
    assert kernels.outer_squares_kernel(gpu_tensor(torch.float64)) is None
    assert kernels.outer_squares_kernel(torch.zeros(2, 2)) is None


def test_unknown_choice_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(kernels.VARIABLE, "fast")
    with pytest.raises(ConfigError, match="ANCHORED_FISHER_KERNEL is 'fast'") as error:
        kernels.outer_squares_kernel(gpu_tensor())
    assert "auto, bmm, triton" in error.value.hint


def test_demanding_the_kernel_without_triton_says_what_to_install(device_name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(kernels.VARIABLE, "triton")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EnvironmentFailure, match="triton is not installed") as error:
        kernels.outer_squares_kernel(gpu_tensor())
    assert 'pip install "anchored[gpu]"' in error.value.hint


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernel_and_bmm_agree_on_a_gpu(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    from anchored.fisher.rules.products import add_outer_squares

    generator = torch.Generator("cuda").manual_seed(0)
    a = torch.randn(5, 197, 200, generator=generator, device="cuda").to(dtype)
    g = torch.randn(5, 197, 136, generator=generator, device="cuda").to(dtype)
    expected = torch.einsum("nto,nti->noi", g.double(), a.double()).square().sum(0)
    for choice in ("bmm", "triton"):
        monkeypatch.setenv(kernels.VARIABLE, choice)
        acc = torch.zeros(136, 200, device="cuda")
        add_outer_squares(acc, a, g)
        assert float((acc.double() - expected).abs().max() / expected.max()) < 1e-5, choice
