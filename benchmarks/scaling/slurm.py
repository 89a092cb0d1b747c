"""A plan on a simulated cluster: the real SLURM controller and 64 daemons on this machine, each job a sleep.

Jobs sleep for the seconds that `anchored plan --cost` predicts of an H100, times a factor that makes the ideal some minutes. What
SLURM takes for a job is not scaled, so its share is larger here than on a cluster, by the same factor.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchored.cost.schedule import makespan
from anchored.cost.throughput import load_device
from anchored.cost.work import Job, plan_work
from anchored.graph import Graph
from anchored.paths import Paths
from anchored.plan.load import Plan

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "slurm"))
from cluster import Cluster, Hardware, missing_programs

NODES, GPUS = 64, 8
_LARGE = 20
_SCRIPT = """#!/bin/bash
line=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" "{times}")
echo "$EPOCHREALTIME" > "{times}.$SLURM_ARRAY_TASK_ID"
exec sleep "$line"
"""


@dataclass(frozen=True)
class Prediction:
    """Jobs of a plan: seconds of each on an H100, what each waits for, which hold a GPU."""

    seconds: dict[Job, float]
    needs: dict[Job, frozenset[Job]]
    held: frozenset[Job]

    @classmethod
    def of(cls, plan: Plan) -> "Prediction":
        """From the cost model."""
        _, device = load_device(None, "h100")
        work = plan_work(plan, Paths(Path("no-such-folder")))
        return cls(
            {job: device.seconds(each.amounts) for job, each in work.items()},
            {job: each.needs for job, each in work.items()},
            frozenset(job for job, each in work.items() if each.gpu),
        )

    def ideal(self, slots: int) -> float:
        """Seconds from the first start to the last end where starting a job takes no time: longest chain of jobs first."""
        return makespan(self.seconds, self.needs, set(self.held), slots)

    def critical(self) -> float:
        """Seconds of the longest chain of jobs: no number of GPUs is faster."""
        return self.ideal(len(self.seconds))

    def busy(self, slots: int) -> float:
        """Seconds of all GPU jobs on so many GPUs that never wait: no order is faster."""
        return sum(self.seconds[job] for job in self.held) / slots


class _Simulated(Cluster):
    """Without the count of every job's memory: each job's daemon would read all processes of this one machine, every second."""

    def _configure(self) -> None:
        super()._configure()
        kept = [line for line in self._configuration.read_text().splitlines() if not line.startswith("JobAcctGather")]
        self._configuration.write_text("\n".join([*kept, "JobAcctGatherType=jobacct_gather/none", ""]))


@contextmanager
def simulated(folder: Path, nodes: int, cpus: int = 64, gpus: int = GPUS) -> Iterator[Cluster]:
    """A cluster of nodes with so many CPUs and GPUs each."""
    cluster = _Simulated(folder, Hardware(nodes=nodes, cpus=cpus, memory=512_000, gpus=gpus))
    try:
        yield cluster.start()
    finally:
        cluster.stop(purge=True)


def available() -> bool:
    """Whether this machine has SLURM."""
    return not missing_programs()


def simulate(plan: Plan, cluster: Cluster, *, target: float) -> dict[str, Any]:
    """Runs a plan's jobs as sleeps, scaled so that the ideal takes `target` seconds; returns what was measured.

    SLURM holds back what has to wait, by dependencies; jobs are submitted in the order of the rules' priorities.
    """
    predicted = Prediction.of(plan)
    slots = cluster.hardware.nodes * GPUS
    factor = target / predicted.ideal(slots)
    began = time.time()
    arrays = _submit(plan, predicted, cluster, factor)
    submitted = time.time() - began
    tasks = _wait(cluster, sum(map(len, arrays.values())))
    sleeps = {(identity, task): predicted.seconds[job] * factor for identity, jobs in arrays.items() for task, job in jobs.items()}
    held = [each["end"] - each["start"] - sleeps[key] for key, each in tasks.items()]
    wall = max(each["end"] for each in tasks.values()) - min(each["submit"] for each in tasks.values())
    return {
        "jobs": len(tasks),
        "gpus": slots,
        "factor": factor,
        "submissions": len(arrays),
        "submit_seconds": submitted,
        "critical_seconds": predicted.critical() * factor,
        "busy_seconds": predicted.busy(slots) * factor,
        "ideal_seconds": predicted.ideal(slots) * factor,
        "measured_seconds": wall,
        "held_beyond_work": statistics.fmean(held),
    }


def flood(cluster: Cluster, jobs: int) -> dict[str, Any]:
    """As many jobs that do nothing: what SLURM and this machine take to start and to end one."""
    times = cluster.folder / f"flood-{jobs}"
    times.write_text("0\n" * jobs)
    _sbatch(cluster, times, jobs, gpu=True, after=())
    tasks = _wait(cluster, jobs)
    wall = max(each["end"] for each in tasks.values()) - min(each["submit"] for each in tasks.values())
    return {"jobs": jobs, "gpus": cluster.hardware.nodes * GPUS, "seconds": wall}


def _submit(plan: Plan, predicted: Prediction, cluster: Cluster, factor: float) -> dict[str, dict[str, Job]]:
    """An array for all jobs that wait for the same; SLURM's number of the array -> task -> job."""
    priority = _priorities(plan)
    groups: dict[tuple[frozenset[Job], bool], list[Job]] = {}
    for job in sorted(predicted.seconds, key=lambda job: -priority.get(job, 0)):
        groups.setdefault((predicted.needs[job], job in predicted.held), []).append(job)
    arrays: dict[str, dict[str, Job]] = {}
    place: dict[Job, str] = {}
    while groups:
        ready = next(key for key in groups if key[0] <= place.keys())
        jobs = groups.pop(ready)
        times = cluster.folder / f"times-{len(arrays)}"
        times.write_text("".join(f"{predicted.seconds[job] * factor:.3f}\n" for job in jobs))
        identity = _sbatch(cluster, times, len(jobs), gpu=ready[1], after=sorted({place[job] for job in ready[0]}))
        arrays[identity] = {str(task): job for task, job in enumerate(jobs, start=1)}
        # The tasks of a large array are waited for as a whole: `evaluate` would name thousands.
        large = len(jobs) > _LARGE
        place |= {job: identity if large else f"{identity}_{task}" for task, job in arrays[identity].items()}
    return arrays


def _priorities(plan: Plan) -> Mapping[Job, int]:
    """What Snakemake's rules say of fine-tuning jobs; all else comes before them by its dependencies."""
    graph = Graph(plan)
    return {(kind, job): graph.priority(kind)([job]) for kind in ("baseline", "anchored") for job in plan[kind]}


def _sbatch(cluster: Cluster, times: Path, jobs: int, *, gpu: bool, after: Sequence[str]) -> str:
    script = times.with_suffix(".sh")
    script.write_text(_SCRIPT.format(times=times))
    options = ["--gpus=1", "--cpus-per-task=8"] if gpu else ["--cpus-per-task=1"]
    if after:
        options.append(f"--dependency=afterok:{':'.join(after)}")
    done = cluster.run("sbatch", "--parsable", "--mem=4000", "--time=60", "--output=/dev/null", f"--array=1-{jobs}", *options,
                       str(script))  # fmt: skip
    return done.stdout.strip()


def _wait(cluster: Cluster, jobs: int) -> dict[tuple[str, str], dict[str, float]]:
    """Waits until the queue is empty; the times of the last `jobs` jobs."""
    while cluster.run("squeue", "--noheader", "--format=%i").stdout.strip():
        time.sleep(2)
    found = finished(cluster)
    return {key: found[key] for key in sorted(found, key=lambda key: (int(key[0]), int(key[1])))[-jobs:]}


def finished(cluster: Cluster) -> dict[tuple[str, str], dict[str, float]]:
    """When every job that SLURM remembers was submitted, started and ended, in seconds, by its array and task.

    Raises:
        RuntimeError: a job did not complete.
    """
    fields = ("ArrayJobID", "ArrayTaskID", "State", "SubmitTime", "StartTime", "EndTime")
    form = ",".join(f"{name}:30" for name in fields)
    found = {}
    for line in cluster.run("squeue", "--noheader", "--array", "--states=all", f"--Format={form}").stdout.splitlines():
        array, task, state, *times = line.split()
        if state != "COMPLETED":
            raise RuntimeError(f"job {array}_{task} ended as {state}.")
        found[array, task.replace("N/A", "0")] = dict(zip(("submit", "start", "end"), map(_seconds, times), strict=True))
    return found


def _seconds(stamp: str) -> float:
    return time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S"))
