"""What SLURM's queue holds of runs of Snakemake."""

import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

# squeue gives up by itself after some 20 s without a controller.
_ANSWER_WITHIN = 90


@dataclass(frozen=True)
class Job:
    """A job that has not ended: its id, the run that submitted it, and its state in SLURM's words."""

    number: str
    run: str
    state: str


def jobs_of(runs: Collection[str]) -> list[Job] | None:
    """Jobs of the given runs, or None where the controller did not answer. The plugin names all jobs of a run by its identity."""
    if not runs or shutil.which("squeue") is None:
        return []
    command = ("squeue", "--me", "--array", "--noheader", "--format=%i\x1f%j\x1f%T", f"--name={','.join(sorted(runs))}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_WITHIN)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        return None
    return [Job(*line.split("\x1f")) for line in done.stdout.splitlines() if line.count("\x1f") == 2]


def cancel(jobs: Collection[Job]) -> bool:
    """Cancels jobs; says whether the controller took it."""
    if not jobs:
        return True
    command = ("scancel", *(job.number for job in jobs))
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=_ANSWER_WITHIN).returncode == 0
    except subprocess.TimeoutExpired:
        return False
