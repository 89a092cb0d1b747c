"""The plan of the paper: compiled, equal budgets, read by both engines, its cost as the page says.

Run as a program (`python tests/workflow/test_paper_plan.py`), this file writes the plan, and the cost into docs/paper.md.
"""

import re
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from checkout import REPOSITORY, Checkout

from anchored.cost.command import plan_cost
from anchored.paths import Paths
from anchored.plan.compile import check_plan, compile_plan
from anchored.plan.load import load_plan

CONFIG, PLAN, PAGE = (REPOSITORY / name for name in ("config/paper.yaml", "plans/paper.json", "docs/paper.md"))
BLOCK = re.compile(r"(<!-- cost -->\n)(.*?)(<!-- end -->)", re.DOTALL)
REPAIR = "run `python tests/workflow/test_paper_plan.py` and commit what it writes"


def with_cost(text: str) -> str:
    """The page with the block that the command prints; data that happen to be prepared here change nothing."""
    printed = plan_cost(CONFIG, Paths(Path("no-such-folder")), slots=8, device=None, throughput=None, as_json=False)
    return BLOCK.sub(lambda match: f"{match[1]}\n{printed}\n{match[3]}", text)


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    return load_plan(PLAN)


def test_committed_plan_is_that_of_the_configuration() -> None:
    """The error names the command that writes it."""
    check_plan(CONFIG, PLAN)


def test_the_plan_is_small_enough_to_be_read_by_people_and_engines() -> None:
    """Git keeps every version of it, and every job on a cluster parses it."""
    assert PLAN.stat().st_size < 2_000_000


def test_every_arm_has_the_same_budget(plan: dict[str, Any]) -> None:
    """The configuration promises 12 configurations and 5 seeds of each."""
    for name, experiment in plan["experiments"].items():
        cells = Counter(cell["arm"] for cell in plan["cells"].values() if cell["experiment"] == name)
        assert cells == dict.fromkeys(experiment["arms"], 12 * 5), name
        assert all(len(arm["configurations"]) == 12 for arm in experiment["arms"].values())
    six = {"erm", "linear-probe", "freeze", "l2sp", "ewc", "ewc-shuffled"}
    assert [set(experiment["arms"]) for experiment in plan["experiments"].values()].count(six) == 4


def test_every_arm_has_the_reference_rate(plan: dict[str, Any]) -> None:
    """Else the table of the same learning rate would be empty."""
    for experiment in plan["experiments"].values():
        for arm in experiment["arms"].values():
            assert experiment["reference_lr"] in arm["grid"].get("lr", [experiment["reference_lr"]])


def test_strengths_are_those_of_l2sp_and_span_six_decades(plan: dict[str, Any]) -> None:
    """With mean(F) = 1 they pull alike; log-spaced by the same factor, within the rounding of the file."""
    for experiment in plan["experiments"].values():
        grids = {tuple(arm["grid"]["strength"]) for arm in experiment["arms"].values() if "strength" in arm["grid"]}
        (strengths,) = grids
        assert strengths[-1] / strengths[0] == pytest.approx(1e6)
        steps = [after / before for before, after in pairwise(strengths)]
        assert steps == pytest.approx([10 ** (6 / 5)] * 5, rel=0.02)


def test_a_cell_of_celeba_is_a_job(plan: dict[str, Any]) -> None:
    """It takes tens of minutes of a GPU; five one after the other would fill a queue with hours."""
    sizes: dict[str, set[int]] = {}
    for job in (*plan["baseline"].values(), *plan["anchored"].values()):
        sizes.setdefault(job["dataset"], set()).add(len(job["cells"]))
    assert sizes == {"waterbirds": {5}, "celeba": {1}}


@pytest.mark.workflow
def test_snakemake_plans_every_job(fresh: Checkout, plan: dict[str, Any]) -> None:
    """A dry run without any data or weights: what no rule makes is none of the engine's business."""
    (fresh.path / "plans").mkdir(exist_ok=True)
    shutil.copy(PLAN, fresh.path / "plans/paper.json")
    done = fresh.run("snakemake", "--dry-run", "--quiet", "rules", "--config", "plan=plans/paper.json")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, flags=re.MULTILINE))
    planned = ("datasets", "backbones", "whole", "shards", "merged", "baseline", "anchored")
    jobs = sum(len(plan[kind]) for kind in planned) + len(("evaluate", "tables"))
    assert int(counts["total"]) == jobs + len(("all",))
    assert (int(counts["finetune_baseline"]), int(counts["finetune_anchored"])) == (len(plan["baseline"]), len(plan["anchored"]))
    assert int(counts["fim_shard"]) == len(plan["shards"])


@pytest.mark.workflow
def test_dvc_reads_every_stage(fresh: Checkout, plan: dict[str, Any]) -> None:
    """Its file names plan.json, so the plan is copied there, as docs/paper.md says."""
    demo = (fresh.path / "plan.json").read_bytes()
    shutil.copy(PLAN, fresh.path / "plan.json")
    try:
        commands = {node["command"] for node in fresh.graph("dvc")}
    finally:
        (fresh.path / "plan.json").write_bytes(demo)
    assert {f"anchored finetune {job}" for kind in ("baseline", "anchored") for job in plan[kind]} <= commands
    assert {f"anchored fim {entry['fim']} --shard {entry['shard']}" for entry in plan["shards"].values()} <= commands


def test_the_page_shows_the_cost_that_the_command_prints() -> None:
    """A table typed by hand would go stale without anybody noticing."""
    text = PAGE.read_text()
    assert len(BLOCK.findall(text)) == 1
    assert with_cost(text) == text, REPAIR


if __name__ == "__main__":
    compile_plan(CONFIG, PLAN)
    PAGE.write_text(with_cost(PAGE.read_text()))
