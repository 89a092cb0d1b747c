"""Snakemake's part on a cluster: its own SLURM executor on the simulated nodes, each job a sleep of some seconds."""

import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from anchored.files import write_json
from anchored.paths import Paths
from scaling.planning import touch_sources
from scaling.process import REPOSITORY, snakemake, use
from scaling.slurm import Cluster, finished
from scaling.study import STEP, plan_of

# In place of the command: sleeps, writes empty outputs, and says when it began and ended.
_STAND_IN = """#!/bin/bash
began=$EPOCHREALTIME
sleep {seconds}
mkdir -p "results/runs/$2"
touch "results/runs/$2"/{{predictions.parquet,history.parquet,models.safetensors,record.json}}
echo "$began $EPOCHREALTIME" > "{times}/$2"
"""


def execute(folder: Path, cluster: Cluster, jobs: int, *, seconds: float) -> dict[str, Any]:
    """Runs the first `jobs` fine-tuning jobs of a study through Snakemake and SLURM; the means of what a job waits for.

    A submission each, as profiles/slurm does it: docs/cluster.md says why no arrays.
    """
    plan = plan_of(-(-jobs // STEP) * STEP)
    names = [*plan["baseline"], *plan["anchored"]][:jobs]
    write_json(folder / "plan.json", plan)
    paths = Paths(Path())
    touch_sources(plan, Paths(folder))
    times = folder / "times"
    times.mkdir()
    python = _environment(folder / "python", _STAND_IN.format(seconds=seconds, times=times))
    command = snakemake(
        "--snakefile", REPOSITORY / "Snakefile", "--config", f"plan={folder / 'plan.json'}", "--workflow-profile", "none",
        "--executor", "slurm", "--jobs", str(jobs), "--scheduler", "greedy", "--slurm-status-command", "squeue",
        "--slurm-init-seconds-before-status-checks", "5", "--default-resources", "mem_mb=1000", "runtime=10",
        "slurm_partition='cpu'", "--quiet", "all", "--", *(paths.run(name) / "record.json" for name in names),
    )  # fmt: skip
    path = os.pathsep.join([str(cluster.folder / "bin"), str(python.parent), cluster.environment["PATH"]])
    began = time.time()
    used = use([python, *command[1:]], folder, {"SLURM_CONF": cluster.environment["SLURM_CONF"], "PATH": path})
    ended = time.time()
    done = list(finished(cluster).values())
    steps = [tuple(map(float, file.read_text().split())) for file in times.iterdir()]
    mean = {name: statistics.fmean(job[name] for job in done) for name in ("start", "end")}
    step = {name: statistics.fmean(each[place] for each in steps) for place, name in enumerate(("begin", "end"))}
    return {
        "jobs": len(done),
        "sleep": seconds,
        "wall": ended - began,
        "last_submitted_after": max(job["submit"] for job in done) - began,
        "before_step": step["begin"] - mean["start"],
        "after_step": mean["end"] - step["end"],
        "noticed_after": ended - max(job["end"] for job in done),
        "snakemake_cpu": used.cpu,
    }


def _environment(folder: Path, stand_in: str) -> Path:
    """A Python whose programs are this one's, but for `anchored`: rules look for it beside Python first. Returns its program."""
    real = Path(sys.executable).parent
    (folder / "bin").mkdir(parents=True)
    for name in ("lib", "lib64"):
        if (real.parent / name).exists():
            (folder / name).symlink_to(real.parent / name)
    if (real.parent / "pyvenv.cfg").exists():
        shutil.copy(real.parent / "pyvenv.cfg", folder)
    (folder / "bin" / "anchored").write_text(stand_in)
    (folder / "bin" / "anchored").chmod(0o755)
    python = folder / "bin" / Path(sys.executable).name
    python.symlink_to(Path(sys.executable).resolve())
    return python
