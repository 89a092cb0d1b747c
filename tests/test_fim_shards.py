"""The step `fim` in parts: scattered, merged, killed and continued, always the same Fisher."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from anchored.errors import ConfigError, InputError
from anchored.files import write_json
from anchored.fisher import load_fisher
from anchored.fisher import step as module
from anchored.fisher.errors import UncoveredParameters
from anchored.fisher.hooks import Hooks
from anchored.fisher.step import fim, fim_merge
from anchored.plan.config import Config
from anchored.plan.expand import expand

MINI = Path(__file__).with_name("mini.yaml")


@pytest.fixture
def sharded(mini_copy):
    """The miniature plan with fim-1 in N shards of whole batches, as the configuration would give it."""

    def plan(shards: int, **values):
        config = yaml.safe_load(MINI.read_text())
        config["fims"]["fim"] |= {"shards": shards, "batch": 3, **values}
        changed = expand(Config.model_validate(config))
        write_json(mini_copy.root / "plan.json", changed)
        return changed

    return plan


def test_seven_shards_give_the_fisher_of_one(sharded, mini_copy):
    plan = sharded(1)
    fim(plan, "fim-1", mini_copy)
    whole = load_fisher(mini_copy.fim("fim-1") / "fim.safetensors")
    plan = sharded(7)
    for index in (3, 7, 1, 2, 6, 5, 4):
        fim(plan, "fim-1", mini_copy, shard=f"{index}/7")
    fim_merge(plan, "fim-1", mini_copy)
    merged = load_fisher(mini_copy.fim("fim-1") / "fim.safetensors")
    assert merged.count == whole.count == 24
    assert dict(merged.metadata) == dict(whole.metadata)
    for name in whole:
        torch.testing.assert_close(merged[name], whole[name], rtol=1e-5, atol=1e-7 * float(whole[name].max()))
    measured = json.loads((mini_copy.fim("fim-1") / "record.json").read_text())["measurements"]
    assert max(measured["precision_errors"].values()) < 1e-3


def test_without_a_shard_all_of_them_are_measured_and_merged(sharded, mini_copy):
    plan = sharded(3)
    for index in (1, 2, 3):
        fim(plan, "fim-1", mini_copy, shard=f"{index}/3")
    fim_merge(plan, "fim-1", mini_copy)
    path = mini_copy.fim("fim-1") / "fim.safetensors"
    scattered = path.read_bytes()
    path.unlink()
    fim(plan, "fim-1", mini_copy, force=True)
    assert path.read_bytes() == scattered


def test_estimates_do_not_depend_on_the_shards(sharded, mini_copy):
    """Shards hold whole batches and signs belong to images."""
    found = []
    for shards in (1, 4):
        fim(sharded(shards, backend="signs"), "fim-1", mini_copy)
        found.append(load_fisher(mini_copy.fim("fim-1") / "fim.safetensors"))
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-5, atol=1e-7 * float(found[0][name].max()))
    record = json.loads((mini_copy.fim("fim-1") / "record.json").read_text())["measurements"]
    assert set(record["relative_standard_errors"]) == set(found[0])
    assert "error of the estimate" in (mini_copy.fim("fim-1") / "card.md").read_text()


def test_a_low_precision_has_its_error_recorded(sharded, mini_copy):
    """Rounded backbones, exact heads: the record says what that costs, tensor by tensor."""
    worst = {}
    for precision in ("fp32", "bf16"):
        fim(sharded(1, precision=precision), "fim-1", mini_copy)
        errors = json.loads((mini_copy.fim("fim-1") / "record.json").read_text())["measurements"]["precision_errors"]
        assert set(errors) == set(load_fisher(mini_copy.fim("fim-1") / "fim.safetensors"))
        worst[precision] = max(errors.values())
    assert 0 < worst["fp32"] < 1e-3
    assert 1e-3 < worst["bf16"] < 0.5


@pytest.mark.parametrize(
    ("name", "shard", "said"),
    [
        ("fim-1", "8/7", r"fims\.fim-1 has no shard 8/7"),
        ("fim-1", "1/2", r"fims\.fim-1 has no shard 1/2"),
        ("fim-2", "1/7", r"'fim-2' is not among|fims\.fim-2 has no shard"),
        ("nothing", "1/7", "'nothing' is not among the fims"),
    ],
)
def test_a_shard_that_the_plan_lacks(mini_copy, mini_plan, sharded, name, shard, said):
    plan = sharded(7) if name != "fim-2" else mini_plan
    with pytest.raises(ConfigError, match=said):
        fim(plan, name, mini_copy, shard=shard)


def test_nothing_to_merge(mini_copy, mini_plan):
    with pytest.raises(ConfigError, match=r"fims\.fim-1 has one shard, there is nothing to merge"):
        fim_merge(mini_plan, "fim-1", mini_copy)


def test_a_missing_shard_is_named_with_its_command(sharded, mini_copy):
    plan = sharded(3)
    fim(plan, "fim-1", mini_copy, shard="1/3")
    with pytest.raises(InputError, match="needs 3 files, 2 of them missing") as caught:
        fim_merge(plan, "fim-1", mini_copy)
    assert "anchored fim fim-1 --shard 2/3" in (caught.value.hint or "")


def test_shards_of_an_older_plan_are_not_merged(sharded, mini_copy):
    plan = sharded(3)
    for index in (1, 2, 3):
        fim(plan, "fim-1", mini_copy, shard=f"{index}/3")
    files = sorted(mini_copy.fim("fim-1").iterdir())
    before = [path.read_bytes() for path in files]
    with pytest.raises(InputError, match="the shards of fim-1 are not those of the plan: they differ in estimator"):
        fim_merge(sharded(3, estimator="sampled"), "fim-1", mini_copy)
    assert [path.read_bytes() for path in files] == before  # an earlier FIM and its record stay what they are


@pytest.mark.parametrize("backend", ["hooks", "signs"])
def test_a_killed_measurement_ends_with_the_bytes_of_an_undisturbed_one(sharded, mini_copy, backend):
    plan = sharded(1, backend=backend, batch=1)
    fim(plan, "fim-1", mini_copy)
    path = mini_copy.fim("fim-1") / "fim.safetensors"
    whole = path.read_bytes()
    path.unlink()
    (mini_copy.fim("fim-1") / "record.json").unlink()
    # Saves after every batch and is killed once it has.
    code = "from anchored.fisher import step; step.SAVE_EVERY = 0.0; from anchored.cli import app; app(['fim', 'fim-1'])"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=mini_copy.root, stderr=subprocess.DEVNULL)
    state = mini_copy.work("fim") / "fim-1" / "sums.safetensors"
    deadline = time.monotonic() + 120
    while not state.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not path.exists()
    fim(plan, "fim-1", mini_copy)
    assert path.read_bytes() == whole
    measured = json.loads((mini_copy.fim("fim-1") / "record.json").read_text())["measurements"]
    assert measured["images_before_a_restart"] > 0
    assert not state.parent.exists()


def test_a_state_of_another_measurement_is_not_continued(sharded, mini_copy, monkeypatch):
    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(module.shutil, "rmtree", lambda *_, **__: None)  # as if it had been killed at the very end
    fim(sharded(1), "fim-1", mini_copy)
    fim(sharded(1, estimator="sampled"), "fim-1", mini_copy)
    measured = json.loads((mini_copy.fim("fim-1") / "record.json").read_text())["measurements"]
    assert measured["images_before_a_restart"] == 0


def test_an_unreadable_state_only_costs_time(sharded, mini_copy):
    state = mini_copy.work("fim") / "fim-1" / "sums.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"torn")
    fim(sharded(1), "fim-1", mini_copy)
    assert (mini_copy.fim("fim-1") / "fim.safetensors").exists()


def test_fallback_takes_the_loop_where_hooks_refuses(sharded, mini_copy, monkeypatch):
    """--fallback loop computes the whole model image by image; never a mixture."""

    def refuse(*_):
        raise UncoveredParameters("no exact batched rule for 1 of 34 parameters: bn1.weight.")

    plan = sharded(1, backend="hooks", precision_check=0)
    monkeypatch.setattr(Hooks, "add", refuse)
    with pytest.raises(ConfigError, match="bn1"):
        fim(plan, "fim-1", mini_copy)
    fim(plan, "fim-1", mini_copy, fallback="loop")
    measured = json.loads((mini_copy.fim("fim-1") / "record.json").read_text())["measurements"]
    assert measured["backend"] == "loop"
    assert "bn1" in measured["backend_reason"]
    with pytest.raises(ConfigError, match="there is no fallback 'guess'"):
        fim(plan, "fim-1", mini_copy, fallback="guess")
