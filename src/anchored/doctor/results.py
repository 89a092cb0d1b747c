"""Whether the records vouch for the results that are here. Reads every result whose digest is not known yet."""

import json
from collections.abc import Iterator

from anchored.doctor.finding import Finding, Patient, error, ok, warning
from anchored.record import Step, planned_step
from anchored.steps import STEP_OF

_NAMED = 3


def check(patient: Patient) -> Iterator[Finding]:
    """Counts steps by what lies there: nothing, bytes that no record vouches for, or a result of other inputs, code or plan."""
    if patient.plan is None:
        return
    done, absent, stale, damaged = 0, 0, [], []
    for kind, step in STEP_OF.items():
        for name in patient.plan.get(kind, ["all"]):
            frame = planned_step(patient.plan, kind, name, patient.paths)
            title = step if kind not in patient.plan else f"{step} {name}"
            if not any(path.exists() for path in frame.outputs) or not frame.record.exists():
                absent += 1
            elif not frame.is_intact():
                damaged.append(title)
            elif _lacks_inputs(frame) or frame.is_up_to_date():
                done += 1
            else:
                stale.append(title)
    total = done + absent + len(stale) + len(damaged)
    if damaged:
        yield error(
            "results",
            f"{len(damaged)} of {total} steps have results that are not what their records say: {_listed(damaged)}.",
            "remove the folder and make it again, or `dvc checkout` what DVC has.",
        )
    if stale:
        yield warning(
            "results",
            f"{len(stale)} of {total} steps have results of another plan, code or input: {_listed(stale)}.",
            "`snakemake` or `dvc repro` makes them again; `snakemake -n` says why.",
        )
    if not damaged and not stale:
        yield ok("results", f"{done} of {total} steps are done, their records vouch for them; {absent} are to be run")


def _lacks_inputs(frame: Step) -> bool:
    """Whether nobody can say if the result is up to date: a FIM that was pulled alone, images that were packed elsewhere."""
    if not all(path.exists() for path in frame.inputs):
        return True
    root = frame.paths.root
    present = {path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name for path in frame.inputs}
    recorded = json.loads(frame.record.read_bytes())["inputs"]
    return any(name not in present and not (root / name).exists() for name in recorded)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
