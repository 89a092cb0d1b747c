"""Snakemake and DVC hold the same graph: hand-written twice, so compared here node by node."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import HERE, REPOSITORY, Checkout, check_out

from anchored.plan.load import load_plan

Nodes = list[dict[str, Any]]

# What DVC names by folder, since a stage's inputs cannot be a list from the plan.
FOLDERS = ("results/data", "results/runs", "results/fim", "results/shards")

# Pieces of dvc.yaml that its stages share, to plant a difference in one of them.
CARD, RECORD = (f"        - results/fim/${{key}}/{file}\n" for file in ("card.md", "record.json"))
FISHER = "        - src/anchored/fisher\n"
CODE = f"      deps:\n        - src/anchored/backbones\n        - src/anchored/data\n{FISHER}"
KEY, BACKBONE = "${key}", "${item.backbone}"
WHOLE = f'${{key}}"]\n      outs:\n        - results/fim/${{key}}/fim.safetensors\n{CARD}{RECORD}\n  fim_shard:'


def differences(snakemake: Nodes, dvc: Nodes) -> list[str]:
    """Sentences on what one graph has and the other has not."""
    ours, theirs = ({node["command"]: node for node in nodes} for nodes in (snakemake, dvc))
    found = [f"only in one graph: {command}" for command in sorted(ours.keys() ^ theirs.keys())]
    above = ancestors(snakemake), ancestors(dvc)
    for command in sorted(ours.keys() & theirs.keys()):
        a, b = ours[command], theirs[command]
        folders = [folder for folder in FOLDERS if folder in b["inputs"]]
        compared = {
            "name": (a["name"], b["name"]),
            "outputs": (sorted(a["outputs"]), sorted(b["outputs"])),
            "entry of the plan": (a["entry"], b["entry"]),
            "digests of the code": (a["code"], b["code"]),
            "inputs": (sorted({_within(path, folders) for path in a["inputs"]}), sorted(set(b["inputs"]))),
            "steps before": (above[0][command], above[1][command]),
        }
        found += [f"{command}: {what} differ: {x} and {y}" for what, (x, y) in compared.items() if x != y]
    return found


def ancestors(nodes: Nodes) -> dict[str, list[str]]:
    """For every command, the commands that have to run before it."""
    makers: dict[str, set[str]] = {}
    for node in nodes:
        for path in node["outputs"]:
            for place in (path, *FOLDERS):
                if path == place or path.startswith(f"{place}/"):
                    makers.setdefault(place, set()).add(node["command"])
    before = {node["command"]: set().union(*(makers.get(path, set()) for path in node["inputs"])) for node in nodes}

    def collect(command: str, seen: set[str]) -> set[str]:
        for maker in before[command] - seen:
            seen.add(maker)
            collect(maker, seen)
        return seen

    return {command: sorted(collect(command, set())) for command in before}


def _within(path: str, folders: list[str]) -> str:
    return next((folder for folder in folders if path.startswith(f"{folder}/")), path)


@pytest.fixture(scope="module")
def snakemake(fresh: Checkout) -> Nodes:
    return fresh.graph("snakemake")


def test_the_graphs_of_the_demo_are_equal(fresh: Checkout, snakemake: Nodes):
    plan = load_plan(fresh.path / "plan.json")
    entries = sum(len(plan[kind]) for kind in ("datasets", "backbones", "whole", "shards", "merged", "baseline", "anchored"))
    assert len(snakemake) == entries + len(("evaluate", "tables"))
    assert differences(snakemake, fresh.graph("dvc")) == []


def test_the_committed_plan_is_the_one_compared(fresh: Checkout):
    assert (fresh.path / "plan.json").read_bytes() == (REPOSITORY / "plan.json").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("        - results/fim/${item.fim}/fim.safetensors\n", "", "ewc-1: inputs differ"),
        ("cmd: anchored prepare ${key}", "cmd: anchored prepare ${key} --force", "only in one graph: anchored prepare"),
        (f"{CARD}{RECORD}\n  fim_shard:", f"{RECORD}\n  fim_shard:", "anchored fim dino-1: outputs differ"),
        (f"fim ${{key}}\n{CODE}", f"fim ${{key}}\n{CODE.replace(FISHER, '')}", "anchored fim dino-1: digests of the code differ"),
        (f"fims.{WHOLE}", f"backbones.{WHOLE.replace(KEY, BACKBONE, 1)}", "anchored fim dino-1: entry of the plan differ"),
        ("      - results/runs\n", "", "anchored evaluate: steps before differ"),
    ],
    ids=["fim not waited for", "another command", "an output less", "code left out", "wrong entry", "runs not waited for"],
)
def test_a_planted_difference_is_found(fresh: Checkout, snakemake: Nodes, old: str, new: str, named: str):
    fresh.edit("dvc.yaml", old, new)
    try:
        found = differences(snakemake, fresh.graph("dvc"))
    finally:
        (fresh.path / "dvc.yaml").write_bytes((REPOSITORY / "dvc.yaml").read_bytes())
    assert any(named in sentence for sentence in found), found


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_the_only_leaf_is_the_plan(fresh: Checkout, engine: str):
    """Snakemake accepts an input that lies there and that no rule makes; a third party would not have it. Code is no leaf: both
    graphs have its digest.
    """
    nodes = fresh.graph(engine)
    made = {path for node in nodes for path in node["outputs"]}
    leaves = {path for node in nodes for path in node["inputs"]} - made - set(FOLDERS)
    assert leaves == {"plan.json"}


def test_another_plan_is_named_on_the_command_line(fresh: Checkout, snakemake: Nodes):
    other = fresh.path / "plans" / "mine.json"
    other.parent.mkdir()
    other.write_bytes((fresh.path / "plan.json").read_bytes())
    nodes = fresh.graph("snakemake", "plans/mine.json")
    assert {node["command"] for node in nodes} == {f"{node['command']} --plan plans/mine.json" for node in snakemake}
    (evaluate,) = [node for node in nodes if node["name"] == "evaluate"]
    assert "plans/mine.json" in evaluate["inputs"]
    assert "plan.json" not in evaluate["inputs"]


def test_long_jobs_come_first(snakemake: Nodes):
    """The demo's last seconds on two cores are then those of a short job."""
    priority = {node["name"]: node["priority"] for node in snakemake}
    steps = ["pretrain tiny-resnet-1", "fim dino-1", "finetune_anchored digitscenes-tiny-resnet-1-ewc-1"]
    probe = "finetune_baseline digitscenes-tiny-resnet-1-linear-probe-1"
    assert sorted([*steps, probe], key=priority.__getitem__, reverse=True) == [*steps, probe]


def test_a_plan_without_anchored_arms_is_a_graph_too(tmp_path: Path):
    lines = (HERE / "mini.yaml").read_text().splitlines(keepends=True)
    checkout = check_out(tmp_path, "".join(line for line in lines if not line.lstrip().startswith("ewc:")))
    snakemake = checkout.graph("snakemake")
    assert not [node for node in snakemake if node["name"].startswith("finetune_anchored")]
    assert differences(snakemake, checkout.graph("dvc")) == []


def test_an_imported_backbone_waits_for_nothing(tmp_path: Path):
    config = yaml.safe_load((HERE / "mini.yaml").read_text())
    theirs = {"architecture": config["backbones"]["resnet"]["architecture"], "weights": {"checkpoint": "weights.safetensors"}}
    config["backbones"]["theirs"] = theirs
    experiment = {key: value for key, value in config["experiments"]["res"].items() if key != "fim"}
    config["experiments"]["imported"] = experiment | {"backbone": "theirs", "arms": {"erm": {"lr": [1.0e-3]}}}
    checkout = check_out(tmp_path, yaml.safe_dump(config))
    snakemake = checkout.graph("snakemake")
    (imported,) = [node for node in snakemake if node["name"] == "import_backbone theirs"]
    assert imported["command"] == "anchored pretrain theirs"
    assert ancestors(snakemake)["anchored pretrain theirs"] == []
    assert differences(snakemake, checkout.graph("dvc")) == []


def test_an_imported_backbone_with_a_head_waits_for_its_bank(tmp_path: Path):
    config = yaml.safe_load((HERE / "mini.yaml").read_text())
    backbone = config["backbones"]["resnet"]
    del backbone["pretraining"]
    backbone |= {"weights": {"checkpoint": "weights.safetensors"}, "head": {"bank": "bank", "from": "trained"}}
    checkout = check_out(tmp_path, yaml.safe_dump(config))
    snakemake = checkout.graph("snakemake")
    (completed,) = [node for node in snakemake if node["name"] == "complete_backbone resnet"]
    assert completed["command"] == "anchored pretrain resnet"
    assert ancestors(snakemake)["anchored pretrain resnet"] == ["anchored prepare bank"]
    assert differences(snakemake, checkout.graph("dvc")) == []
