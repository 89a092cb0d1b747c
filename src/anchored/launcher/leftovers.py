"""What a run that broke off left behind: jobs in the queue, and results that Snakemake does not know.

Jobs go on without the Snakemake that submitted them, and their results are as good as any. Two things are needed before the next
one may start. The jobs must have ended: it would submit them again, beside themselves. And their results must be made known to it
(`snakemake --touch`): else it would take them as they are, but, holding no metadata, miss every later change of their entries in
the plan. Only results are made known that their own records vouch for. What a killed job left half-written, without a record that
is true of it, goes: Snakemake would take it for finished, too.
"""

import json
import os
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from anchored.launcher import queue
from anchored.paths import Paths
from anchored.plan.load import Plan
from anchored.record import planned_step
from anchored.steps import STEP_OF, outputs

_LOOK_EVERY = 5.0
_NAMED = 5
_CLOCK_ERROR = 0.01

# Map of the plan -> the rules that make its entries.
RULES = {
    "datasets": ("prepare",),
    "backbones": ("pretrain", "complete_backbone", "import_backbone"),
    "whole": ("fim",),
    "shards": ("fim_shard",),
    "merged": ("fim_merge",),
    "baseline": ("finetune_baseline",),
    "anchored": ("finetune_anchored",),
    "evaluate": ("evaluate",),
    "tables": ("tables",),
}


def end_jobs(runs: Collection[str], say: Callable[[str], None], *, cancel: bool, sure: bool) -> None:
    """Returns when no job of `runs` is in the queue: it waits for them, or cancels them first.

    Args:
        runs: identities of earlier runs.
        say: tells the user something.
        cancel: cancel the jobs.
        sure: wait for a controller that does not answer. Otherwise it is asked once: nothing says that there are jobs.
    """
    last, cancelled = "", False
    while (jobs := queue.jobs_of(runs)) != []:
        if jobs is None:
            if not sure:
                return
            message = "SLURM's controller does not answer; waiting for it, since jobs of an earlier run may be in its queue."
        elif cancel:
            message = f"cancelling {len(jobs)} jobs of an earlier run."
            cancelled = cancelled or queue.cancel(jobs)
        else:
            named = [f"{job.number} {job.state.lower()}" for job in jobs[:_NAMED]] + ["..."] * (len(jobs) > _NAMED)
            message = (f"waiting for {len(jobs)} jobs of an earlier run ({', '.join(named)}). "
                       "Ctrl-C and `anchored run --cancel` end them instead; they would continue where they were.")  # fmt: skip
        if message != last:
            say(message)
        last = message
        time.sleep(_LOOK_EVERY)


@dataclass
class Unknown:
    """Results that Snakemake has no metadata of.

    Attributes:
        vouched: main outputs, relative to the root, of finished steps, by map of the plan.
        torn: main outputs that no record is true of.
    """

    vouched: dict[str, list[str]] = field(default_factory=dict)
    torn: list[Path] = field(default_factory=list)


def unknown_results(plan: Plan, root: Path) -> Unknown:
    """Looks at every step of the plan; a result of other code, inputs or entries is left alone, for Snakemake judges these."""
    found = Unknown()
    if not (root / ".snakemake" / "metadata").is_dir():
        return found
    for kind in STEP_OF:
        for name in plan.get(kind, ["all"]):
            files = outputs(kind, name, Paths())
            if not (root / files[0]).exists() or _known(root, files[0]):
                continue
            step = planned_step(plan, kind, name, Paths(root))
            if not step.is_intact():
                found.torn.append(root / files[0])
            elif all((root / file).exists() for file in files) and step.is_up_to_date():
                found.vouched.setdefault(kind, []).append(str(files[0]))
    return found


def make_known(snakemake: str, results: dict[str, list[str]], options: list[str], root: Path) -> bool:
    """Tells Snakemake that results are finished; says whether it took all of them."""
    # Forced, since Snakemake sees nothing to do for them. A call a map: a step must not lead to the steps before it, which might
    # be stale and would be touched, too.
    done = []
    for kind, files in results.items():
        only = ["--force", "--allowed-rules", *RULES[kind], "--rerun-incomplete"]
        command = [snakemake, "--cores", "1", "--touch", *options, *only, "--", *files]
        done.append(subprocess.run(command, cwd=root, capture_output=True, check=False).returncode == 0)
    return all(done)


def _known(root: Path, file: Path) -> bool:
    """Whether Snakemake's metadata are of the present output. It names them by the path in base 64, in pieces that fit a file name;
    those of an earlier one tell an earlier end.
    """
    metadata = root / ".snakemake" / "metadata"
    longest = os.pathconf(metadata, "PC_NAME_MAX") - 1
    name = urlsafe_b64encode(str(file).encode()).decode()
    pieces = [name[start : start + longest] for start in range(0, len(name), longest)]
    try:
        ended = json.loads(metadata.joinpath(*(f"@{piece}" for piece in pieces[:-1]), pieces[-1]).read_text())["endtime"]
        return float(ended) >= (root / file).stat().st_mtime - _CLOCK_ERROR
    except (OSError, ValueError, KeyError, TypeError):
        return False
