"""Checkpoints: bit-exact, and what is wrong with a file is a sentence; a pickle's code never runs."""

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from anchored.backbones.build import build, seeded
from anchored.backbones.checkpoint import load_anchor, load_tensors, network, save_checkpoint
from anchored.backbones.imports import import_weights
from anchored.errors import InputError
from anchored.files import file_digest

ARCHITECTURE = {"family": "tiny-resnet", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}
VIT = {"family": "tiny-vit", "image": 20, "patch": 4, "width": 16, "depth": 2, "heads": 2}


def entry(checkpoint: str, *, digest: str | None = None, architecture: dict = ARCHITECTURE) -> dict:
    weights = {"checkpoint": checkpoint, "digest": digest, "timm": False, "source": "theirs"}
    return {"family": "theirs", "architecture": architecture, "anchor": "student", "weights": weights, "head": None}


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


@pytest.mark.parametrize("form", ["safetensors", "pth", "pth wrapped", "pt"])
def test_import_of_a_local_file(model, tmp_path, form):
    """Files as other people publish them: plain, or inside {"state_dict": ...}."""
    path = tmp_path / f"weights.{form.split()[0]}"
    state = model.state_dict()
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state} if "wrapped" in form else state, path)
    assert_same(import_weights(entry(path.name, digest=file_digest(path)), tmp_path).networks["student"], model)
    assert_same(import_weights(entry(path.name), tmp_path).networks["student"], model)


def test_import_refuses_another_file(model, tmp_path):
    """The plan pins a file by digest: a re-uploaded checkpoint of the same name is another backbone."""
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    with pytest.raises(InputError, match=f"has SHA-256 {file_digest(path)}, the plan pins {'0' * 64}"):
        import_weights(entry(path.name, digest="0" * 64), tmp_path)
    with pytest.raises(InputError, match=r"none\.pth is missing") as caught:
        import_weights(entry("none.pth"), tmp_path)
    assert "weights.checkpoint" in caught.value.hint


class _Attack:
    """A pickle that writes a file when somebody opens it carelessly."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.write_text, (self.victim, "owned")


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_pickle_does_not_run(tmp_path, how):
    """.pth files are programs; a downloaded one must not be able to do anything."""
    victim, path = tmp_path / "victim", tmp_path / "weights.pth"
    attack = {"weight": torch.ones(1), "evil": _Attack(victim)}
    if how == "torch":
        torch.save(attack, path)
    else:
        path.write_bytes(pickle.dumps(attack, protocol=2))
    with pytest.raises(InputError, match="is no plain tensor file") as caught:
        import_weights(entry(path.name), tmp_path)
    assert not victim.exists()
    assert caught.value.hint == "only files of tensors are read."
    torch.load(path, weights_only=False) if how == "torch" else pickle.loads(path.read_bytes())
    assert victim.read_text() == "owned", "the attack would not have worked, so this test shows nothing"


def test_import_checks_the_content(model, tmp_path):
    """Truncated, not tensors, NaN, another architecture: one sentence each."""
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no pickle at all")
    with pytest.raises(InputError, match="is no plain tensor file"):
        import_weights(entry(path.name), tmp_path)
    torch.save({"a": 1, "b": torch.ones(1)}, path)
    with pytest.raises(InputError, match="holds no flat mapping of names to tensors"):
        import_weights(entry(path.name), tmp_path)
    torch.save(build(VIT).state_dict(), path)
    with pytest.raises(InputError, match="does not fit the architecture"):
        import_weights(entry(path.name), tmp_path)
    model.conv1.weight.data.fill_(float("nan"))
    torch.save(model.state_dict(), path)
    with pytest.raises(InputError, match=r"holds NaN or infinity in conv1\.weight"):
        import_weights(entry(path.name), tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"\0" * 9)
    with pytest.raises(InputError, match="is truncated or no safetensors file"):
        import_weights(entry("weights.safetensors"), tmp_path)
