"""Checkpoints: bit-exact, and what is wrong with a file is a sentence; a pickle's code never runs."""


import pytest
import torch

from anchored.backbones.build import seeded
from anchored.backbones.checkpoint import load_anchor, load_tensors, network, save_checkpoint
from anchored.errors import InputError

ARCHITECTURE = {"family": "tiny-resnet", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}
VIT = {"family": "tiny-vit", "image": 20, "patch": 4, "width": 16, "depth": 2, "heads": 2}


@pytest.fixture
def model() -> torch.nn.Module:
    return seeded(ARCHITECTURE, 1)


def assert_same(model: torch.nn.Module, other: torch.nn.Module) -> None:
    expected, found = model.state_dict(), other.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) and expected[name].dtype == found[name].dtype for name in expected)


def test_round_trip_is_bit_exact(model, tmp_path):
    """The FIM carries the digest of these bits; channels-last weights once came back transposed elsewhere."""
    teacher = seeded(ARCHITECTURE, 2).to(memory_format=torch.channels_last)
    centre = torch.randn(7)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, {"student": model, "teacher": teacher}, {"centre": centre})
    for anchor, expected in {"student": model, "teacher": teacher}.items():
        loaded, tensors = load_anchor(path, {"architecture": ARCHITECTURE, "anchor": anchor}, made_by="x")
        assert_same(loaded, expected)
        assert not loaded.training
        assert torch.equal(tensors["centre"], centre)
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, {"student": model, "teacher": teacher}, {"centre": centre})
    assert again.read_bytes() == path.read_bytes()


def test_network_selects_by_whole_prefix():
    """`student` must not take the tensors of `student_head`."""
    tensors = {"student.a": torch.ones(1), "student_head.a": torch.zeros(1)}
    assert network(tensors, "student").keys() == {"a"}
    assert network(tensors, "teacher") == {}


def test_nan_is_named(model, tmp_path):
    """A diverged pre-training must stop here, not as NaN in a table."""
    path = tmp_path / "model.safetensors"
    model.layer2[0].conv1.weight.data[0, 0, 0, 0] = float("nan")
    model.bn1.running_var[0] = float("inf")
    save_checkpoint(path, {"student": model}, {})
    with pytest.raises(InputError, match="holds NaN or infinity") as caught:
        load_tensors(path, made_by="anchored pretrain x")
    assert caught.value.message.endswith(" in student.bn1.running_var, student.layer2.0.conv1.weight.")
    assert "diverged" in caught.value.hint


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_checkpoint(model, tmp_path, keep):
    """A copy that was cut short, at any place of the file."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, {"student": model}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="is truncated or no safetensors file") as caught:
        load_tensors(path, made_by="anchored pretrain x")
    assert caught.value.hint == "run `anchored pretrain x --force`."
    path.unlink()
    with pytest.raises(InputError, match="is missing") as caught:
        load_tensors(path, made_by="anchored pretrain x")
    assert caught.value.hint == "run `anchored pretrain x`."


def test_wrong_architecture_is_named(model, tmp_path):
    """Another family, and another width of the same family."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, {"student": model}, {})
    with pytest.raises(InputError, match=r"does not fit the architecture: \d+ tensors are missing \(blocks.0") as caught:
        load_anchor(path, {"architecture": VIT, "anchor": "student"}, made_by="x")
    assert "check architecture and weights" in caught.value.hint
    wider = ARCHITECTURE | {"channels": [8, 8, 8, 32]}
    with pytest.raises(InputError, match=r"\(student\): layer4\.0\.\S+ has shape \(16,\), not \(32,\)"):
        load_anchor(path, {"architecture": wider, "anchor": "student"}, made_by="x")
