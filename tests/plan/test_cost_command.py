"""`anchored plan --cost` and `--calibrate` as a user meets them."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from cost_device import TRUE

from anchored.cost.estimate import cost
from anchored.cost.text import cost_text, duration
from anchored.cost.throughput import built_in
from anchored.cost.work import plan_work
from anchored.paths import Paths

NUMBER, COUNT = {"type": "number", "minimum": 0}, {"type": "integer", "minimum": 0}
SUM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["jobs", "images", "gpu_hours", "cpu_hours", "disk_bytes", "longest_seconds"],
    "properties": {
        "jobs": COUNT, "images": COUNT, "gpu_hours": NUMBER, "cpu_hours": NUMBER, "disk_bytes": COUNT, "longest_seconds": NUMBER,
    },
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "plan", "device", "devices", "steps", "experiments", "disk_bytes", "total", "wall_hours", "constants"],
    "properties": {
        "schema": {"const": 1},
        "plan": {"type": "string"},
        "device": {"type": "string"},
        "devices": {"type": "integer", "minimum": 1},
        "steps": {"type": "object", "additionalProperties": SUM},
        "experiments": {"type": "object", "additionalProperties": SUM},
        "disk_bytes": {"type": "object", "additionalProperties": COUNT},
        "total": SUM,
        "wall_hours": NUMBER,
        "constants": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["value", "source"],
                "properties": {"value": NUMBER, "source": {"type": "string", "minLength": 10}},
            },
        },
    },
}


def test_json_follows_its_schema(run_cli, root):
    """Scripts that reserve a cluster read it."""
    done = run_cli("plan", "--cost", "--json", "--gpus", "4", "--config", str(root / "config/demo.yaml"))
    assert done.code == 0, done.err
    found = json.loads(done.out)
    jsonschema.validate(found, SCHEMA)
    assert found["devices"] == 4
    assert found["total"]["jobs"] == sum(step["jobs"] for step in found["steps"].values())
    assert found["total"]["gpu_hours"] == pytest.approx(sum(step["gpu_hours"] for step in found["steps"].values()))


def test_the_tables_say_what_is_assumed(run_cli, root, tmp_path):
    """Somebody will quote them."""
    done = run_cli("plan", "--cost", "--config", str(root / "config/demo.yaml"), root=None)
    assert done.code == 0, done.err
    assert "Cost of the plan 'demo' on 1 x h100" in done.out
    assert "| finetune linear-probe |" in done.out
    assert "rates of this device are assumed, not measured: matmul.bf16" in done.out
    assert "`anchored plan --calibrate RESULTS --throughput FILE`" in done.out


def test_cost_writes_nothing(run_cli, root, tmp_path, monkeypatch):
    """It answers a question."""
    monkeypatch.chdir(tmp_path)
    assert run_cli("plan", "--cost", "--config", str(root / "config/demo.yaml")).code == 0
    assert list(tmp_path.iterdir()) == []


def test_calibrate_writes_what_cost_reads(run_cli, root, records, tmp_path):
    """From records to a cost, by the two commands a user types."""
    config, file = ("--config", str(root / "tests/mini.yaml")), str(tmp_path / "mine.yaml")
    done = run_cli("plan", *config, "--calibrate", str(records), "--throughput", file)
    assert done.code == 0, done.err
    assert "| slower.hooks" in done.out
    assert f"written to {file}" in done.out
    found = json.loads(run_cli("plan", *config, "--cost", "--json", "--throughput", file).out)
    assert found["device"] == "cpu"
    seconds = [json.loads(path.read_text())["wall_seconds"] + TRUE["start"] for path in records.rglob("*record.json")]
    assert found["wall_hours"] * 3600 == pytest.approx(sum(seconds), rel=0.02)


@pytest.mark.parametrize(("seconds", "words"), [(44.4, "44 s"), (600, "10 min"), (9000, "2.5 h"), (360_000, "100 h")])
def test_durations_read_like_durations(seconds, words):
    assert duration(seconds) == words


def test_text_of_a_plan_without_experiments_has_no_empty_table(mini_plan):
    """FIMs alone are a study too."""
    plan = copy.deepcopy(mini_plan)
    for kind in ("experiments", "cells", "baseline", "anchored"):
        plan[kind] = {}
    text = cost_text(cost(plan, plan_work(plan, Paths(Path("no-such-folder"))), "h100", built_in(True), 1))
    assert "finetune" not in text
    assert "experiment" not in text.split("rates of this device")[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpus", "4"), "--gpus says something about costs only"),
        (("--check", "--json"), "--json says something about costs only"),
        (("--cost", "--check"), "cannot do --check together with --cost"),
        (("--cost", "--manual"), "cannot do --manual together with --cost"),
    ],
)
def test_options_that_would_be_ignored_are_refused(run_cli, root, tmp_path, options, said):
    """`--cost --check` that checks nothing is a green light that means nothing."""
    out = tmp_path / "plan.json"
    done = run_cli("plan", *options, "--config", str(root / "config/demo.yaml"), "--out", str(out))
    assert done.code == 2
    assert said in done.err
    assert not out.exists()
