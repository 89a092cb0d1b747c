"""Room for what the plan still has to write."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from anchored.amounts import amount
from anchored.doctor.finding import Finding, Patient, error, ok, warning
from anchored.steps import outputs

if TYPE_CHECKING:  # sizes of networks need torch, which takes seconds to import
    from anchored.cost.work import Job, Work


def check(patient: Patient) -> Iterator[Finding]:
    """What `anchored plan --cost` says of outputs that are missing, against free space."""
    from anchored.cost.work import plan_work

    if patient.plan is None:
        return
    place = _existing(patient.paths.results)
    free = shutil.disk_usage(place).free
    needed = missing_bytes(patient, plan_work(patient.plan, patient.paths))
    copies = (patient.root / ".dvc").is_dir()
    if needed == 0:
        yield ok("disk", f"everything is written; {amount(free)} are free")
        return
    text = f"the plan still writes about {amount(needed)}" + (", DVC's cache as much again" if copies else "")
    if needed > free:
        yield error("disk", f"{text}; {amount(free)} are free in {place}.", "free space, or put the checkout on another disk.")
    elif copies and 2 * needed > free:
        yield warning("disk", f"{text}; {amount(free)} are free in {place}.", "`dvc cache dir FOLDER` puts the cache elsewhere.")
    else:
        yield ok("disk", f"{text}; {amount(free)} are free")


def missing_bytes(patient: Patient, work: "dict[Job, Work]") -> int:
    """Bytes of the jobs whose main output is missing, and of the largest resume state among them."""
    missing = [each for job, each in work.items() if not outputs(*job, patient.paths)[0].exists()]
    return sum(sum(each.disk.values()) for each in missing) + max((each.resume for each in missing), default=0)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.absolute().parent)
