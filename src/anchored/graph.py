"""The plan as Snakemake's rules ask for it: functions of a rule's wildcards, so that the rules hold no logic.

Every rule has at most one wildcard, the name of an entry of the plan; rules without one (evaluate, tables) read it all.
Snakemake imports this while it parses, in every job on a cluster: it needs nothing but the standard library.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from anchored.image import WATCHED, watched_code
from anchored.paths import Paths
from anchored.plan.load import Plan, load_plan
from anchored.steps import STEP_OF, code_digest, inputs, outputs

PLAN_FILE = Path("plan.json")
DEVICES = Path("/dev")

_ROOT = Paths()
# Maps of the plan whose entries are jobs of a rule.
_MAPS = ("datasets", "pretrained", "completed", "imported", "whole", "shards", "merged", "baseline", "anchored")


@dataclass(frozen=True)
class Graph:
    """The steps of a plan.

    Args:
        plan: the compiled plan.
        plan_file: where it was read from, as the command line should name it.
    """

    plan: Plan
    plan_file: Path = PLAN_FILE

    @classmethod
    def load(cls, plan_file: str | Path) -> "Graph":
        """Reads the plan; raises ConfigError as `load_plan` does."""
        return cls(load_plan(Path(plan_file)), Path(plan_file))

    def constraint(self, kind: str) -> str:
        """A wildcard constraint: the names in the map `kind`, or what never matches where it is empty.

        Names that differ in their last number are one alternative, unless another map has such names: Snakemake writes the
        constraint into every pattern of the rule, and reads the pattern again for every file of every job.
        """
        foreign = {stem for other in _MAPS if other != kind for stem in self._stems[other]}
        shared = [f"{stem}[0-9]+" for stem in self._stems[kind] if stem not in foreign]
        single = [name for name in self.plan[kind] if (stem := _stem(name)) is None or stem in foreign]
        return "|".join(shared + single) or "(?!)"

    @cached_property
    def _stems(self) -> dict[str, dict[str, None]]:
        """Of every map, what its names have before their last number, in the plan's order."""
        return {kind: dict.fromkeys(filter(None, map(_stem, self.plan[kind]))) for kind in _MAPS}

    def targets(self, *kinds: str) -> Callable[[Sequence[str]], list[str]]:
        """The main output of every entry of the given maps; a function, which a job that needs none of them never calls."""
        return lambda wildcards: [str(outputs(kind, name, _ROOT)[0]) for kind in kinds for name in self.plan[kind]]

    def inputs(self, kind: str) -> Callable[[Sequence[str]], list[str]]:
        """What an entry reads. Steps over the whole plan read the plan's file too: any change of it concerns them."""

        def of(wildcards: Sequence[str]) -> list[str]:
            needs = [str(path) for path in inputs(kind, _name(wildcards), self.plan, _ROOT)]
            return needs if kind in self.plan else [str(self.plan_file), *needs]

        return of

    def outputs(self, kind: str, wildcard: str = "") -> list[str]:
        """What an entry writes, as patterns in `wildcard`."""
        return [str(path) for path in outputs(kind, wildcard, _ROOT)]

    def code(self, kind: str) -> str:
        """The digest of the source files of the step that makes `kind`, as a parameter: Snakemake runs the step again when it
        changes, and keeps one value for each job. As inputs, the files were most of what it looks at.
        """
        return code_digest(STEP_OF[kind])

    def entry(self, kind: str) -> Callable[[Sequence[str]], Any]:
        """An entry of the plan, as a parameter: Snakemake runs the step again when it changes."""
        return lambda wildcards: self.plan[kind][_name(wildcards)]

    def plan_option(self, wildcards: Sequence[str], input: Sequence[str]) -> str:
        """` --plan FILE` unless it is the default. Snakemake records no parameter that takes `input`, and it should not
        record this one: the same entry in a plan of another name is the same work.
        """
        return "" if self.plan_file == PLAN_FILE else f" --plan {self.plan_file}"

    @property
    def threads(self) -> int:
        """CPU threads of a process; part of the plan."""
        return int(self.plan["threads"])

    def priority(self, kind: str) -> Callable[[Sequence[str]], int]:
        """Long jobs first, so that short ones fill the cores at the end; the cost of a job is its epochs."""

        def of(wildcards: Sequence[str]) -> int:
            return sum(_epochs(self.plan["cells"][cell]) for cell in self.plan[kind][_name(wildcards)]["cells"])

        return of


def visible_gpus() -> int:
    """1 where a job would find an NVIDIA GPU, else 0; looks at devices, since importing torch takes seconds."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = chosen is not None and chosen.strip() in ("", "-1")
    return int(not hidden and any(DEVICES.glob("nvidia[0-9]*")))


def prepare_jobs() -> None:
    """Puts this Python's programs first on PATH, so that rules find `anchored` without an activated environment, and asks for
    progress by lines: jobs that run at the same time share the terminal, and their bars would overwrite each other. Steps in a
    container learn which code is watched out here.
    """
    os.environ[WATCHED] = watched_code()
    os.environ["ANCHORED_PROGRESS"] = "lines"
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _epochs(cell: dict[str, Any]) -> int:
    # A linear probe is fitted on features that are computed once: about the cost of an epoch.
    return 1 if cell["arm"] == "linear-probe" else int(cell["training"]["epochs"])


def _stem(name: str) -> str | None:
    """What stands before the last number, or None where the name does not end in one."""
    stem = name.rstrip("0123456789")
    return stem if stem != name else None


def _name(wildcards: Sequence[str]) -> str:
    return wildcards[0] if len(wildcards) else "all"
