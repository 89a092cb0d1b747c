"""What evaluation needs to know of a plan, as typed, read-only records.

The plan is the only list of what has to exist: which cells, in which job's file, in which order. Folders are never
searched, so a forgotten or a stray result can never enter (or silently leave) a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anchored.errors import ConfigError

Hyper = Mapping[str, float]

HYPER_COLUMNS = ("lr", "strength", "stages", "c")
"""Hyper-parameters that always get a column; others follow in alphabetical order."""


@dataclass(frozen=True)
class Cell:
    """One training run: where it belongs and how it was configured."""

    name: str
    experiment: str
    dataset: str
    backbone: str
    family: str
    arm: str
    configuration: str
    hyper: Hyper
    replicate: int
    seed: int
    job: str


@dataclass(frozen=True)
class Arm:
    """A way to fine-tune, with its configurations in the order of the plan."""

    name: str
    configurations: tuple[str, ...]
    hyper: Mapping[str, Hyper]


@dataclass(frozen=True)
class Experiment:
    """Arms that are compared with each other on one dataset."""

    name: str
    dataset: str
    title: str
    note: str
    baseline: str
    reference_lr: float | None
    rules: tuple[str, ...]
    draws: int
    contrasts: tuple[tuple[str, str], ...]
    arms: Mapping[str, Arm]


@dataclass(frozen=True)
class Study:
    """The experiments and cells of one plan."""

    name: str
    seed: int
    experiments: Mapping[str, Experiment]
    cells: Mapping[str, Cell]

    def jobs(self) -> dict[str, list[str]]:
        """The cells that each job's file has to hold, jobs and cells in the order of the plan."""
        jobs: dict[str, list[str]] = {}
        for cell in self.cells.values():
            jobs.setdefault(cell.job, []).append(cell.name)
        return jobs

    def cells_of(self, experiment: str) -> list[Cell]:
        """The cells of one experiment in the order of the plan."""
        return [cell for cell in self.cells.values() if cell.experiment == experiment]

    def hyper_columns(self) -> tuple[str, ...]:
        """The usual hyper-parameters, then any others in alphabetical order."""
        others = {key for cell in self.cells.values() for key in cell.hyper} - set(HYPER_COLUMNS)
        return (*HYPER_COLUMNS, *sorted(others))


def read_study(plan: Mapping[str, Any]) -> Study:
    """The evaluation's view of `plan`.

    Raises:
        ConfigError: cells of the plan belong to no job, or an experiment's baseline or contrast names an arm it lacks.
    """
    job_of = {
        cell: job for kind in ("baseline", "anchored") for job, entry in plan[kind].items() for cell in entry["cells"]
    }
    homeless = [name for name in plan["cells"] if name not in job_of]
    if homeless:
        raise ConfigError(
            f"plan: {len(homeless)} of {len(plan['cells'])} cells belong to no job, first {homeless[0]}.",
            "run `anchored plan` to compile the plan again.",
        )
    cells = {name: _cell(name, entry, job_of[name]) for name, entry in plan["cells"].items()}
    experiments = {name: _experiment(name, entry, cells) for name, entry in plan["experiments"].items()}
    return Study(plan["name"], int(plan["seed"]), experiments, cells)


def _cell(name: str, entry: Mapping[str, Any], job: str) -> Cell:
    return Cell(
        name=name,
        experiment=entry["experiment"],
        dataset=entry["dataset"],
        backbone=entry["backbone"],
        family=entry["family"],
        arm=entry["arm"],
        configuration=entry["configuration"],
        hyper=dict(entry["hyper"]),
        replicate=int(entry["replicate"]),
        seed=int(entry["seed"]),
        job=job,
    )


def _experiment(name: str, entry: Mapping[str, Any], cells: Mapping[str, Cell]) -> Experiment:
    named = {entry["baseline"], *(arm for pair in entry.get("contrasts", []) for arm in pair)}
    unknown = sorted(named - set(entry["arms"]))
    if unknown:
        raise ConfigError(
            f"plan: experiments.{name} compares with arm {', '.join(unknown)}, which it does not have.",
            f"its arms are {', '.join(entry['arms'])}.",
        )
    reference = entry.get("reference_lr")
    return Experiment(
        name=name,
        dataset=entry["dataset"],
        title=entry.get("title") or name,
        note=entry.get("note") or "",
        baseline=entry["baseline"],
        reference_lr=None if reference is None else float(reference),
        rules=tuple(entry["rules"]),
        draws=int(entry["bootstrap"]),
        contrasts=tuple((first, second) for first, second in entry.get("contrasts", [])),
        arms={arm: _arm(name, arm, value, cells) for arm, value in entry["arms"].items()},
    )


def _arm(experiment: str, arm: str, entry: Mapping[str, Any], cells: Mapping[str, Cell]) -> Arm:
    """Configurations come from the plan, their values from the cells: identities are looked up, never parsed."""
    hyper = {
        cell.configuration: cell.hyper for cell in cells.values() if cell.experiment == experiment and cell.arm == arm
    }
    return Arm(
        arm, tuple(entry["configurations"]), {key: hyper[key] for key in entry["configurations"] if key in hyper}
    )
