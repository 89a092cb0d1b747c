"""Whether the plan is valid, and the one of its configuration."""

from collections.abc import Iterator
from pathlib import Path

from anchored.doctor.finding import Finding, Patient, misconfigured, ok, warning
from anchored.errors import AnchoredError
from anchored.plan.compile import check_plan

CONFIG_FOLDER = Path("config")


def check(patient: Patient) -> Iterator[Finding]:
    """The configuration is found by its name, which the plan holds."""
    plan = patient.plan
    if plan is None:
        return
    counts = f"{patient.plan_file}: {len(plan['cells'])} cells in {len(plan['baseline']) + len(plan['anchored'])} jobs"
    config = patient.root / CONFIG_FOLDER / f"{plan['name']}.yaml"
    if not config.is_file():
        yield warning(
            "plan",
            f"{counts}; {config} is missing, so it was compared with nothing.",
            f"`anchored plan --check --config FILE --out {patient.plan_file}` compares it with its configuration.",
        )
        return
    try:
        check_plan(config, patient.plan_file)
    except AnchoredError as failure:
        yield misconfigured("plan", failure.message, failure.hint)
        return
    yield ok("plan", f"{counts}, as {config} says")
