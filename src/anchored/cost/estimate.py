"""The cost of a plan on a device, added up by step, by experiment and by kind of file."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from anchored.cost.schedule import makespan
from anchored.cost.throughput import Device
from anchored.cost.work import Job, Work
from anchored.plan.load import Plan

_HOUR = 3600.0


@dataclass(frozen=True)
class Sum:
    """The cost of some jobs.

    Attributes:
        jobs: their number.
        images: that go through them.
        gpu_hours: during which they occupy a GPU; on a device without one 0.
        cpu_hours: of cores; a job has all the threads of the plan as long as it runs.
        disk_bytes: of their outputs.
        longest_seconds: of one job.
    """

    jobs: int = 0
    images: int = 0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    disk_bytes: int = 0
    longest_seconds: float = 0.0

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(
            self.jobs + other.jobs,
            self.images + other.images,
            self.gpu_hours + other.gpu_hours,
            self.cpu_hours + other.cpu_hours,
            self.disk_bytes + other.disk_bytes,
            max(self.longest_seconds, other.longest_seconds),
        )


@dataclass(frozen=True)
class Cost:
    """The cost of a plan.

    Attributes:
        plan: its name.
        device: name of the device.
        constants: what the device was taken to do.
        slots: number of devices.
        steps: by step, fine-tuning by arm.
        experiments: fine-tuning by experiment.
        disk: bytes by kind of file; resume states of jobs that run at the same time last.
        wall_seconds: from the first start to the last end.
    """

    plan: str
    device: str
    constants: Device
    slots: int
    steps: Mapping[str, Sum]
    experiments: Mapping[str, Sum]
    disk: Mapping[str, int]
    wall_seconds: float

    @property
    def total(self) -> Sum:
        """All jobs."""
        return add(self.steps.values())

    def as_json(self) -> dict[str, Any]:
        """The cost as JSON values."""
        return {
            "schema": 1,
            "plan": self.plan,
            "device": self.device,
            "devices": self.slots,
            "steps": {name: vars(part) for name, part in self.steps.items()},
            "experiments": {name: vars(part) for name, part in self.experiments.items()},
            "disk_bytes": dict(self.disk),
            "total": vars(self.total),
            "wall_hours": self.wall_seconds / _HOUR,
            "constants": {key: constant.model_dump() for key, constant in self.constants.constants().items()},
        }


def cost(plan: Plan, work: Mapping[Job, Work], name: str, device: Device, slots: int) -> Cost:
    """What the jobs of a plan cost on `slots` devices of the given name."""
    seconds = {job: device.seconds(each.amounts) for job, each in work.items()}
    steps: dict[str, Sum] = {}
    experiments: dict[str, Sum] = {}
    for job, each in work.items():
        one = _sum(each, seconds[job], device, plan["threads"])
        steps[each.step] = steps.get(each.step, Sum()) + one
        if each.experiment:
            experiments[each.experiment] = experiments.get(each.experiment, Sum()) + one
    disk: Counter[str] = Counter()
    for each in work.values():
        disk.update(each.disk)
    disk["resume states while running"] = sum(sorted((each.resume for each in work.values()), reverse=True)[:slots])
    held = {job for job, each in work.items() if each.gpu or not device.gpu}
    wall = makespan(seconds, {job: each.needs for job, each in work.items()}, held, slots)
    return Cost(plan["name"], name, device, slots, steps, experiments, disk, wall)


def add(parts: Iterable[Sum]) -> Sum:
    """The sum of costs."""
    return sum(parts, Sum())


def _sum(work: Work, seconds: float, device: Device, threads: int) -> Sum:
    hours = seconds / _HOUR
    gpu = hours if work.gpu and device.gpu else 0.0
    return Sum(1, work.images, gpu, hours * threads, sum(work.disk.values()), seconds)
