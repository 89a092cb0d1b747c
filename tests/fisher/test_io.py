import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fisher_cases import random, vit
from safetensors.torch import save_file
from torch import nn

from anchored.errors import ConfigError, EnvironmentFailure, InputError
from anchored.fisher import (
    DiagonalFisher,
    backbone_digest,
    diagonal_fisher,
    load_fisher,
    load_shard,
    merge,
    save_fisher,
    save_shard,
)
from anchored.fisher.errors import ForeignFisher, MissingFisher, ShapeMismatch

METADATA = {"estimator": "sampled", "objective": "dino", "seed": "3"}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.fixture
def fisher(model: nn.Module) -> DiagonalFisher:
    return diagonal_fisher(model, [random(5, 3).float()], lambda m, x: m(x).square().sum(1))


@pytest.fixture
def stored(tmp_path: Path, model: nn.Module, fisher: DiagonalFisher) -> Path:
    path = tmp_path / "fim" / "a.safetensors"
    save_fisher(path, fisher, metadata={**METADATA, "backbone_digest": backbone_digest(dict(model.named_parameters()))})
    return path


def test_round_trip(stored: Path, model: nn.Module, fisher: DiagonalFisher):
    loaded = load_fisher(stored, model)
    assert set(loaded) == set(fisher)
    assert len(loaded) == len(fisher)
    assert all(torch.equal(loaded[name], fisher[name]) for name in fisher)
    assert (loaded.count, loaded.estimator, loaded.objective) == (5, "sampled", "dino")
    assert loaded.backbone_digest == backbone_digest(dict(model.named_parameters()))
    assert loaded.metadata["seed"] == "3"
    assert loaded.metadata["backend"] == "hooks"
    assert [p.name for p in stored.parent.iterdir()] == [stored.name]


def test_the_same_fisher_gives_the_same_bytes_in_every_process(tmp_path: Path):
    """safetensors orders metadata by a randomly seeded hash."""
    code = (
        "import sys, torch; from anchored.fisher import DiagonalFisher, save_fisher\n"
        "fisher = DiagonalFisher({'b': torch.ones(3), 'a': torch.arange(4.0)}, 2, 'loop')\n"
        "save_fisher(sys.argv[1], fisher, metadata={k: k for k in 'qwertyuiopé'})\n"
    )
    files = [tmp_path / f"{index}.safetensors" for index in range(3)]
    for file in files:
        run(code, str(file))
    assert len({file.read_bytes() for file in files}) == 1
    assert load_fisher(files[0]).metadata["é"] == "é"
    assert torch.equal(load_fisher(files[0])["a"], torch.arange(4.0) / 2)


def test_channels_last_and_empty_tensors_survive(tmp_path: Path):
    image = random(2, 3, 4, 4).square().contiguous(memory_format=torch.channels_last)
    save_fisher(tmp_path / "f", DiagonalFisher({"a": image, "e": torch.zeros(0)}, 1, "loop"), metadata={})
    loaded = load_fisher(tmp_path / "f")
    assert torch.equal(loaded["a"], image)
    assert (loaded.estimator, loaded.backbone_digest) == ("", "")


def test_shards_add_exactly(tmp_path: Path, model: nn.Module):
    images = random(5, 3).float()
    parts = [diagonal_fisher(model, [part], lambda m, x: m(x).square().sum(1)) for part in images.split(2)]
    for index, part in enumerate(parts):
        save_shard(tmp_path / f"{index}", part, metadata={})
    loaded = merge([load_shard(tmp_path / f"{index}") for index in range(3)])
    assert loaded.count == 5
    assert all(torch.equal(loaded.sums[name], merge(parts).sums[name]) for name in loaded)
    sentence = r"0 holds the shard of a Fisher, but a whole Fisher is needed\.\n  run `anchored fim-merge`"
    with pytest.raises(InputError, match=sentence):
        load_fisher(tmp_path / "0")
    save_fisher(tmp_path / "whole", parts[0], metadata={})
    with pytest.raises(InputError, match="whole holds a whole Fisher, but the shard of a Fisher is needed"):
        load_shard(tmp_path / "whole")


def test_metadata_that_cannot_be_kept(tmp_path: Path, fisher: DiagonalFisher):
    with pytest.raises(ConfigError, match="metadata of a Fisher cannot set count"):
        save_fisher(tmp_path / "f", fisher, metadata={"count": "3"})
    with pytest.raises(ConfigError, match=r"metadata of a Fisher must be text, but seed is not\.\n  convert it with str"):
        save_fisher(tmp_path / "f", fisher, metadata={"seed": 3})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())


def test_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.safetensors is missing\.\n  run `anchored fim`"):
        load_fisher(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_file(stored: Path, keep: int):
    stored.write_bytes(stored.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.safetensors is truncated or no safetensors file: .*\n  remove it and measure"):
        load_fisher(stored)


def test_files_of_others(tmp_path: Path):
    (tmp_path / "text").write_text("not a tensor in sight, however long this sentence may become")
    with pytest.raises(InputError, match="text is truncated or no safetensors file"):
        load_fisher(tmp_path / "text")
    save_file({"a": torch.ones(2)}, tmp_path / "weights")
    with pytest.raises(InputError, match="weights holds no Fisher of this project, but a whole Fisher is needed"):
        load_fisher(tmp_path / "weights")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-9])
def test_impossible_entries(tmp_path: Path, value: float):
    save_fisher(tmp_path / "f", DiagonalFisher({"a": torch.ones(2), "b": torch.tensor([1.0, value])}, 1, "loop"), metadata={})
    with pytest.raises(InputError, match="f: the Fisher of b has entries that are NaN, infinite or negative"):
        load_fisher(tmp_path / "f")


def test_another_point_of_the_same_backbone(stored: Path, model: nn.Module):
    old = backbone_digest(dict(model.named_parameters()))
    with torch.no_grad():
        model[0].bias[1] = torch.nextafter(model[0].bias[1], torch.tensor(9.0))
    new = backbone_digest(dict(model.named_parameters()))
    with pytest.raises(ForeignFisher) as caught:
        load_fisher(stored, model)
    assert str(caught.value) == (
        f"fim mismatch: {stored} was measured on backbone {old[:8]}…, the model is {new[:8]}….\n"
        "  run `anchored fim` for this backbone, or load the backbone of this Fisher: the anchor itself, not a fine-tuned one."
    )


def test_freezing_a_stage_after_the_measurement_is_no_mismatch(stored: Path, model: nn.Module):
    model[0].requires_grad_(False)
    assert load_fisher(stored, model).count == 5


def test_parameters_without_an_entry_are_all_listed(stored: Path, model: nn.Module):
    model.append(nn.Linear(2, 2))
    with pytest.raises(MissingFisher, match=r"a\.safetensors has no Fisher for 3\.weight, 3\.bias\.\n  measure it with"):
        load_fisher(stored, model)
    model[3].requires_grad_(False)
    assert load_fisher(stored, model).count == 5


def test_entries_without_a_parameter(stored: Path, model: nn.Module):
    with pytest.raises(ForeignFisher, match=r"fim mismatch: .* covers 2\.bias, 2\.weight, which the model lacks"):
        load_fisher(stored, nn.Sequential(model[0]))


def test_shapes_are_compared(stored: Path, model: nn.Module):
    model[2] = nn.Linear(4, 5)
    with pytest.raises(ShapeMismatch, match=r"the Fisher of 2\.bias has shape \(2,\), the parameter \(5,\)\."):
        load_fisher(stored, model)


def test_an_unwritable_folder_is_no_crash(tmp_path: Path, fisher: DiagonalFisher):
    (tmp_path / "file").write_text("")
    with pytest.raises((EnvironmentFailure, OSError)):
        save_fisher(tmp_path / "file" / "f", fisher, metadata={})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs resource limits")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    """A limit on the file size stands for the disk: the write stops in the middle."""
    code = (
        "import resource, sys, torch; from anchored.fisher import DiagonalFisher, save_fisher\n"
        "save_fisher(sys.argv[1], DiagonalFisher({'a': torch.ones(3)}, 1, 'loop'), metadata={})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    save_fisher(sys.argv[1], DiagonalFisher({'a': torch.ones(30000)}, 1, 'loop'), metadata={})\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    output = run(code, str(tmp_path / "f"))
    assert output.startswith("EnvironmentFailure cannot write")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert torch.equal(load_fisher(tmp_path / "f")["a"], torch.ones(3))


def test_digest_is_of_names_types_shapes_and_bits():
    state = {"b": torch.arange(4.0), "a": random(2, 3, 4, 4)}
    digest = backbone_digest(state)
    assert len(digest) == 64
    assert backbone_digest(dict(reversed(state.items()))) == digest
    assert backbone_digest({**state, "a": state["a"].contiguous(memory_format=torch.channels_last)}) == digest
    assert backbone_digest({**state, "b": nn.Parameter(state["b"])}) == digest
    others = [
        {**state, "b": state["b"].view(2, 2)},
        {**state, "b": state["b"].view(torch.int32)},
        {"b": state["b"], "c": state["a"]},
        {"b": state["b"]},
        {**state, "b": torch.tensor([-0.0, 1.0, 2.0, 3.0])},
    ]
    assert len({digest, *map(backbone_digest, others)}) == 6
    assert backbone_digest({"a": torch.ones(2, dtype=torch.bfloat16), "s": torch.tensor(1.0)})


def test_a_vit_survives_the_way_through_the_file(tmp_path: Path):
    model = vit(reg_tokens=1, init_values=0.1).eval()
    fisher = diagonal_fisher(model, [random(2, 3, 16, 16).float()], lambda m, x: m(x).square().sum(1))
    save_fisher(tmp_path / "f", fisher, metadata={"backbone_digest": backbone_digest(dict(model.named_parameters()))})
    assert len(load_fisher(tmp_path / "f", model)) == len(list(model.parameters()))


def run(code: str, *arguments: str) -> str:
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment)
    return done.stdout
