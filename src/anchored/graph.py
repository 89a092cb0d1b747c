"""The plan as Snakemake's rules ask for it: functions of a rule's wildcards, so that the rules hold no logic.

Every rule has at most one wildcard, the name of an entry of the plan; rules without one (evaluate, tables) read it all.
Snakemake imports this while it parses, in every job on a cluster: it needs nothing but the standard library.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchored.image import WATCHED, watched_code
from anchored.paths import Paths
from anchored.plan.load import Plan, load_plan
from anchored.steps import STEP_OF, code_files, inputs, outputs

PLAN_FILE = Path("plan.json")
DEVICES = Path("/dev")

_ROOT = Paths()


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

    def names(self, kind: str) -> list[str]:
        """The entries of the plan's map `kind`, in its order."""
        return list(self.plan[kind])

    def constraint(self, kind: str) -> str:
        """A wildcard constraint: the names in the map `kind`, or what never matches where it is empty."""
        return "|".join(self.names(kind)) or "(?!)"

    def targets(self, *kinds: str) -> list[str]:
        """The main output of every entry of the given maps."""
        return [str(outputs(kind, name, _ROOT)[0]) for kind in kinds for name in self.plan[kind]]

    def inputs(self, kind: str) -> Callable[[Sequence[str]], list[str]]:
        """What an entry reads. Steps over the whole plan read the plan's file too: any change of it concerns them."""

        def of(wildcards: Sequence[str]) -> list[str]:
            needs = [str(path) for path in inputs(kind, _name(wildcards), self.plan, _ROOT)]
            return needs if kind in self.plan else [str(self.plan_file), *needs]

        return of

    def outputs(self, kind: str, wildcard: str = "") -> list[str]:
        """What an entry writes, as patterns in `wildcard`."""
        return [str(path) for path in outputs(kind, wildcard, _ROOT)]

    def code(self, kind: str) -> list[str]:
        """The source files of the step that makes `kind`, relative to the working directory: a moved checkout stays valid."""
        return [os.path.relpath(path) for path in code_files(STEP_OF[kind])]

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


def _name(wildcards: Sequence[str]) -> str:
    return wildcards[0] if len(wildcards) else "all"
