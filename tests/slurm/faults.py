"""What the fault tests share: a study whose jobs can be held in the middle of an epoch, and a journal of all that was computed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from checkout import Checkout, check_out
from cluster import Cluster

CONFIG = Path(__file__).with_name("faults.yaml")
EPOCHS = 4
JOB, OTHER = "res-resnet-erm-1", "res-resnet-ewc-1"
# They tell when, where and how fast; everything else depends on the plan alone.
TIMED = ("record.json", "report.html")
LONG = 900

# Runs in every Python of the checkout. Python tells an audit hook of each file before it is opened or renamed, and the state of
# every epoch and the record of every step are files. So the journal holds a line for each that was computed, saved or not; and a
# process can be held between computing an epoch and saving it, or made to grow there.
SPY = '''
import os, sys, time
from pathlib import Path

FAULTS = Path(__file__).parents[1] / "faults"

def note(what, name):
    line = f"{what} {name} {os.getpid()}\\n".encode()
    descriptor = os.open(FAULTS / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line)
    os.close(descriptor)

def epoch(cell):
    note("epoch", cell)
    count = (FAULTS / "journal").read_text().count(f"epoch {cell} ")
    hold, grow = FAULTS / f"hold-{cell}", FAULTS / f"grow-{cell}"
    if grow.exists() and count >= int(grow.read_text().split()[0]):
        megabytes = int(grow.read_text().split()[1])
        grow.unlink()
        taken = []
        while len(taken) < megabytes // 50:
            taken.append(b"x" * (50 << 20))
            time.sleep(0.2)
        time.sleep(60)
    while hold.exists() and count >= int(hold.read_text() or 1):
        time.sleep(0.05)

def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        folder, name = os.path.split(os.fspath(arguments[0]))
        if name.startswith(".state.pt.") and FAULTS.is_dir():
            epoch(os.path.basename(folder))
    elif event == "os.rename" and os.fspath(arguments[1]).endswith("record.json") and FAULTS.is_dir():
        note("record", os.path.relpath(arguments[1], FAULTS.parent))

sys.addaudithook(hook)
'''


@dataclass(frozen=True)
class Row:
    """A line of the table in docs/reliability.md."""

    fault: str
    happened: str
    attempts: int
    again: int
    lost: int
    equal: bool


def whole_study(path: Path) -> Checkout:
    """A checkout of the study after an undisturbed run on this machine."""
    made = check_out(path, CONFIG.read_text())
    (path / "src" / "sitecustomize.py").write_text(SPY)
    made.run("snakemake", "--cores", "2")
    return made


def results(checkout: Checkout) -> dict[str, bytes]:
    """Every result that depends on the plan alone, with its bytes."""
    files = (path for path in (checkout.path / "results").rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(checkout.path)): path.read_bytes() for path in files if not path.name.endswith(TIMED)}


@dataclass
class Study:
    """A copy of the whole study, in which some jobs have to be computed again, on the cluster."""

    checkout: Checkout
    cluster: Cluster
    undisturbed: dict[str, bytes]
    jobs: tuple[str, ...]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._faults.mkdir()
        for job in self.jobs:
            for file in (self.path / "results" / "runs" / job).iterdir():
                file.unlink()

    @property
    def path(self) -> Path:
        """The checkout's folder."""
        return self.checkout.path

    @property
    def _faults(self) -> Path:
        return self.path / "faults"

    def start(self, *options: str, more: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Starts `anchored run` for the study's jobs with the cluster's profile, in the background; `more` goes to Snakemake."""
        targets = [f"results/runs/{job}/predictions.parquet" for job in self.jobs]
        # The accounting database is missing here, so the queue is asked, and often: tests should not wait for polls.
        command = ["anchored", "run", "--profile", "slurm", *options, *targets, "--", "--slurm-status-command", "squeue",
                   "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5", *more]  # fmt: skip
        with (self.path / "terminal").open("ab") as terminal:
            process = subprocess.Popen(
                command, cwd=self.path, env=self._environment, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def call(self, command: str) -> None:
        """Runs a command as it stands in the docs, to its end."""
        done = subprocess.run(
            command.split(), cwd=self.path, env=self._environment, capture_output=True, text=True, check=False, timeout=LONG
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    @property
    def _environment(self) -> dict[str, str]:
        inherited = self.cluster.environment | {"PYTHONPATH": str(self.path / "src"), "GIT_CONFIG_GLOBAL": os.devnull}
        programs = (str(self.cluster.folder / "bin"), str(Path(sys.executable).parent), inherited["PATH"])
        return inherited | {"PATH": os.pathsep.join(programs)}

    @property
    def terminal(self) -> str:
        """What the user saw, of all runs."""
        return (self.path / "terminal").read_text(errors="replace")

    def finish(self, process: subprocess.Popen[bytes]) -> int:
        """Waits for the end of a run; returns its exit code."""
        return process.wait(timeout=LONG)

    def hold(self, job: str, *, epoch: int = 2) -> None:
        """Holds the job's first cell after it computed an epoch, before it saves it."""
        (self._faults / f"hold-{self.cell(job)}").write_text(str(epoch))

    def grow(self, job: str, megabytes: int, *, epoch: int = 2) -> None:
        """Makes the job's first cell take memory after it computed an epoch, before it saves it; once."""
        (self._faults / f"grow-{self.cell(job)}").write_text(f"{epoch} {megabytes}")

    def release(self, job: str) -> None:
        """Lets the job go on."""
        (self._faults / f"hold-{self.cell(job)}").unlink(missing_ok=True)

    def cell(self, job: str) -> str:
        """The first cell of a job."""
        plan = json.loads((self.path / "plan.json").read_text())
        return (plan["baseline"] | plan["anchored"])[job]["cells"][0]

    def journal(self, what: str, name: str = "") -> list[str]:
        """Lines of the journal: "epoch" of a cell, "record" of a step."""
        file = self._faults / "journal"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.startswith(f"{what} {name}")]

    def until(self, what: str, reached: Callable[[], object], seconds: float = LONG, *, running: bool = True) -> None:
        """Waits for something; a run that ends before it is a failure of the test, but where none is `running`."""
        end = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > end:
                pytest.fail(f"{what} did not come within {seconds} s:\n{self.terminal[-5000:]}")
            if running and self.started and all(process.poll() is not None for process in self.started):
                pytest.fail(f"the run ended before {what}:\n{self.terminal[-5000:]}")
            time.sleep(0.3)

    def until_held(self, job: str, *, epoch: int = 2) -> None:
        """Waits until the job's first cell has computed an epoch."""
        self.until(f"epoch {epoch} of {job}", lambda: len(self.journal("epoch", f"{self.cell(job)} ")) >= epoch)

    def slurm_job(self, job: str) -> str:
        """The number of the job's last attempt in SLURM."""
        numbers = [int(each["id"]) for each in self.cluster.jobs() if each["comment"].endswith(job) and self._mine(each)]
        return str(max(numbers))

    def state(self, number: str) -> str:
        """A SLURM job's state."""
        return next(each["state"] for each in self.cluster.jobs() if each["id"] == number)

    def until_requeued(self, number: str) -> None:
        """Waits until SLURM has put a job back into its queue, and spares it the two minutes that it would have to wait there."""
        self.until("the requeueing", lambda: self.state(number) == "PENDING", 240)
        self.cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")

    def processes(self, *words: str) -> list[int]:
        """Processes in this checkout's folder whose command holds these words one after the other."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                inside = Path(os.readlink(entry / "cwd")) == self.path
                command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if inside and any(tuple(command[at : at + len(words)]) == words for at in range(len(command))):
                found.append(int(entry.name))
        return found

    def main_snakemake(self) -> int:
        """The Snakemake that submits jobs: the child of `anchored run`."""
        return json.loads((self.path / "work" / "run.json").read_text())["process"]

    def kill(self, pid: int) -> None:
        """SIGKILL."""
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends what still runs."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
        for name in [*map(str, self._faults.glob("hold-*"))]:
            Path(name).unlink()
        for pid in self.processes("--rerun-incomplete"):
            self.kill(pid)

    def row(self, fault: str, happened: str) -> Row:
        """Makes the tables, compares everything with the undisturbed run, and counts what was computed."""
        left = self.checkout.would_run("snakemake")
        assert left <= {"anchored evaluate", "anchored tables"}, left
        self.checkout.run("anchored", "run", "--cores", "2")
        found = results(self.checkout)
        lost = [name for name in self.undisturbed if name not in found]
        assert lost == []
        assert [name for name in found if found[name] != self.undisturbed.get(name)] == []
        for job in self.jobs:
            records = self.journal("record", f"results/runs/{job}/record.json ")
            assert len(records) == 1, f"{job} was computed {len(records)} times"
        rubbish = [*(self.path / "results").rglob(".*.tmp"), *self.path.glob("work/res-*")]
        assert rubbish == []
        epochs = [line.split() for line in self.journal("epoch")]
        again = len(epochs) - EPOCHS * len({cell for _, cell, _ in epochs})
        attempts = max(len({process for _, of, process in epochs if of == cell}) for _, cell, _ in epochs)
        tables = [name for name in found if name.startswith("results/tables/")]
        return Row(fault, happened, attempts, again, len(lost), all(found[name] == self.undisturbed[name] for name in tables))

    def _mine(self, job: dict[str, str]) -> bool:
        return job["name"] in self.terminal


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False
