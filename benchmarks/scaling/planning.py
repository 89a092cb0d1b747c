"""How long engines plan: `snakemake --dry-run` of a whole study, the start of one of its jobs, `anchored plan`, `dvc`."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from anchored.files import json_text, write_bytes, write_text
from anchored.graph import Graph
from anchored.paths import Paths
from anchored.plan.load import Plan
from anchored.steps import outputs
from scaling.process import REPOSITORY, anchored, least, snakemake, use
from scaling.study import configuration, plan_of

# The least that Snakemake can be asked: as many jobs, each with one output and no input.
_BARE = """
rule all:
    input: "all.done"
rule collect:
    input: [f"results/{number}/out.txt" for number in range(int(config["jobs"]))]
    output: "all.done"
    shell: "touch {output}"
rule one:
    output: "results/{number}/out.txt"
    shell: "touch {output}"
"""
JOB = "waterbirds-vit-dino-vitb16-ewc-1"


def plan_engines(folder: Path, cells: int, repeats: int) -> dict[str, Any]:
    """A dry run, a trivial workflow of the same size beside it, a job's start, and `anchored plan` of a study of so many cells."""
    plan = plan_of(cells)
    write_text(folder / "plan.json", json_text(plan))
    write_text(folder / "study.yaml", yaml.safe_dump(configuration(cells)))
    write_text(folder / "bare" / "Snakefile", _BARE)
    touch_sources(plan, Paths(folder / "started"))
    asked = ("--dry-run", "--quiet", "all", "--snakefile", REPOSITORY / "Snakefile", "--config", f"plan={folder / 'plan.json'}")
    job = ("--target-jobs", f"finetune_anchored:job={JOB}", "--allowed-rules", "finetune_anchored", "--force", "--nolock")
    commands = {
        "dry_run": (snakemake(*asked), folder),
        "bare": (snakemake("--dry-run", "--quiet", "all", "--config", f"jobs={cells}", "--scheduler", "greedy"), folder / "bare"),
        "job_start": (snakemake(*asked, *job), folder / "started"),
        "compile": (anchored("plan", "--config", folder / "study.yaml", "--out", folder / "compiled.json"), folder),
        "cost": (anchored("plan", "--config", folder / "study.yaml", "--cost", "--gpus", "512"), folder),
    }
    once = {name: use(*commands.pop(name)) for name in ("compile", "cost")}
    # They take turns, so that whatever slows the machine slows all.
    rounds = [{name: use(*command) for name, command in commands.items()} for _ in range(repeats)]
    return {
        "cells": cells,
        "plan_bytes": (folder / "plan.json").stat().st_size,
        "inputs_per_job": len(Graph(plan).inputs("anchored")([JOB])),
        **{name: asdict(least(*(each[name] for each in rounds))) for name in commands},
        **{name: asdict(used) for name, used in once.items()},
    }


def plan_dvc(folder: Path, cells: int) -> dict[str, Any]:
    """What DVC takes to find out what to run, where it has run nothing yet; a dry run wants to see what stages read."""
    plan, checkout = plan_of(cells), folder / "checkout"
    for name in ("dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"):
        write_bytes(checkout / name, (REPOSITORY / name).read_bytes())
    shutil.copytree(REPOSITORY / "src", checkout / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    write_text(checkout / "plan.json", json_text(plan))
    touch_sources(plan, Paths(checkout), ("datasets", "backbones", "shards", "fims", "baseline", "anchored", "evaluate"))
    use(["git", "init", "--quiet"], checkout)
    dvc, environment = [sys.executable, "-m", "dvc"], {"DVC_SITE_CACHE_DIR": str(folder / "site")}
    return {
        "cells": cells,
        "dry": asdict(use([*dvc, "repro", "--dry"], checkout, environment)),
        "status": asdict(use([*dvc, "status"], checkout, environment)),
    }


def touch_sources(plan: Plan, paths: Paths, kinds: Sequence[str] = ("datasets", "backbones", "shards", "fims")) -> None:
    """Empty files in place of all that fine-tuning jobs wait for: engines look at their times only."""
    for kind in kinds:
        for name in plan.get(kind, ["all"]):
            for path in outputs(kind, name, paths):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
