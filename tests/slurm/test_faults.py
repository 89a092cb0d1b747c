"""What breaks on a cluster, broken on purpose: nothing may be lost, and nothing computed twice but the epoch that was interrupted.

Each test makes a row of the table in docs/reliability.md, which `make test-faults` writes.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest
from checkout import Checkout
from cluster import Cluster, Hardware, missing_programs
from fault_table import COMMANDS, write_table
from faults import JOB, OTHER, Row, Study, alive, results, whole_study
from requirement import PROMISED, unavailable

pytestmark = pytest.mark.slurm_faults

Make = Callable[..., Study]
CPUS = 8
MARKER = "slurm_faults"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes; a silent one counts as lost after ten seconds."""
    if MARKER not in os.environ.get(PROMISED, "").split(","):
        pytest.skip("these take minutes each: run `make test-faults`.")
    if missing := missing_programs():
        unavailable(MARKER, f"there is no {', '.join(missing)}: run `.ci/install-slurm`.")
    made = Cluster(Path(tempfile.mkdtemp(prefix="faults-")), Hardware(cpus=CPUS, memory=128_000), node_timeout=10)
    try:
        yield made.start()
    finally:
        made.stop(purge=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The study after an undisturbed run; tests must not change it."""
    return whole_study(tmp_path_factory.mktemp("whole") / "checkout")


@pytest.fixture
def study(whole: Checkout, cluster: Cluster, tmp_path: Path) -> Iterator[Make]:
    """study(JOB) -> a copy of the study in which these jobs have to be computed again."""
    made: list[Study] = []

    def make(*jobs: str) -> Study:
        cluster.start()
        made.append(Study(whole.copy(tmp_path / "checkout"), cluster, results(whole), jobs))
        return made[-1]

    yield make
    for each in made:
        each.close()
    cluster.start()
    cluster.run("scancel", "--me", check=False)


@pytest.fixture(scope="module")
def record() -> Iterator[Callable[[Row], None]]:
    """Takes the rows of the table; writes it at the end where that was asked for."""
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        assert row.lost == 0
        assert row.equal

    yield add
    if os.environ.get("ANCHORED_WRITE_FAULTS"):
        write_table(rows)


def test_the_process_of_a_job_is_killed(study: Make, record: Callable[[Row], None]):
    """By the kernel for memory, say."""
    made = study(JOB)
    made.hold(JOB)
    run = made.start()
    made.until_held(JOB)
    first = made.slurm_job(JOB)
    for pid in made.processes("finetune", JOB):
        made.kill(pid)
    made.release(JOB)
    assert made.finish(run) == 0
    assert made.state(first) == "FAILED"
    row = made.row("The process of a job is killed (SIGKILL)", "SLURM: FAILED; Snakemake submits it again")
    assert row.again == 1
    record(row)


def test_a_job_runs_into_its_time_limit(study: Make, record: Callable[[Row], None]):
    made = study(JOB)
    made.hold(JOB, epoch=3)
    run = made.start()
    made.until_held(JOB, epoch=3)
    first = made.slurm_job(JOB)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3))
    made.cluster.run("scontrol", "update", f"JobId={first}", f"EndTime={soon}")
    made.until("the time limit", lambda: made.state(first) == "TIMEOUT", 240)
    made.release(JOB)
    assert made.finish(run) == 0
    row = made.row("A job runs into its time limit", "SLURM: TIMEOUT; submitted again, with a longer limit")
    assert row.again == 1
    record(row)


def test_a_job_takes_more_memory_than_it_asked_for(study: Make, record: Callable[[Row], None]):
    made = study(JOB)
    made.grow(JOB, 2500)
    run = made.start(more=("--set-resources", "finetune_baseline:mem_mb=attempt*1500"))
    made.until_held(JOB)
    first = made.slurm_job(JOB)
    assert made.finish(run) == 0
    assert "emory limit" in "".join(path.read_text() for path in made.path.glob(f".snakemake/slurm_logs/**/{first}.log"))
    row = made.row("A job takes more memory than it asked for", "killed by SLURM; submitted again, with twice the memory")
    assert row.again == 1
    record(row)


def test_a_job_is_cancelled_by_somebody(study: Make, record: Callable[[Row], None]):
    made = study(JOB)
    made.hold(JOB)
    run = made.start()
    made.until_held(JOB)
    first = made.slurm_job(JOB)
    made.cluster.run("scancel", first)
    made.release(JOB)
    assert made.finish(run) == 0
    assert made.state(first) == "CANCELLED"
    row = made.row("A job is cancelled by somebody (scancel)", "SLURM: CANCELLED; submitted again")
    assert row.again == 1
    record(row)


def test_a_job_is_preempted(study: Make, record: Callable[[Row], None]):
    """A job of a better partition takes all nodes; SLURM puts ours back into the queue by itself."""
    made = study(JOB)
    made.hold(JOB)
    run = made.start()
    made.until_held(JOB)
    first = made.slurm_job(JOB)
    nodes = f"--nodes={len(made.cluster.nodes)}"
    made.cluster.run("sbatch", "--partition=urgent", nodes, "--exclusive", "--output=/dev/null", "--wrap=sleep 5")
    made.until_requeued(first)
    made.release(JOB)
    assert made.finish(run) == 0
    row = made.row("A job is pre-empted by a more urgent one", "SLURM requeues it; the same job continues")
    assert row.again == 1
    record(row)


def test_a_node_is_lost(study: Make, record: Callable[[Row], None]):
    """Its daemon and everything on it end at once."""
    made = study(JOB)
    made.hold(JOB)
    run = made.start()
    made.until_held(JOB)
    first = made.slurm_job(JOB)
    node = next(job["node"] for job in made.cluster.jobs() if job["id"] == first)
    made.cluster.lose_node(node)
    made.until_requeued(first)
    made.release(JOB)
    assert made.finish(run) == 0
    row = made.row("A node is lost, with everything on it", "SLURM notices its silence and starts the job elsewhere")
    assert row.again == 1
    record(row)


def test_a_node_is_cut_off_while_its_job_runs_on(study: Make, record: Callable[[Row], None]):
    """SLURM takes the node for lost and starts the job elsewhere: two processes at the same work, one of which has to wait."""
    made = study(JOB)
    made.hold(JOB)
    run = made.start()
    made.until_held(JOB)
    first = made.slurm_job(JOB)
    node = next(job["node"] for job in made.cluster.jobs() if job["id"] == first)
    (survivor, *_) = made.processes("finetune", JOB)
    made.cluster.kill(f"slurmd.{node}", signal.SIGKILL)
    made.until_requeued(first)
    made.until("the second process", lambda: len(set(made.processes("finetune", JOB))) > 1 and _second(made, node), 300)
    assert alive(survivor)
    time.sleep(5)
    made.release(JOB)
    assert made.finish(run) == 0
    happened = "the job starts elsewhere, waits there for the first process, and finds its result"
    row = made.row("A node is cut off, and its job runs on", happened)
    assert row.again == 0
    record(row)


def _second(made: Study, node: str) -> bool:
    """Whether the job runs on another node."""
    return any(job["state"] == "RUNNING" and job["node"] != node and job["comment"].endswith(JOB) for job in made.cluster.jobs())


def test_the_controller_is_away_for_30_seconds(study: Make, record: Callable[[Row], None]):
    """Snakemake's plugin forgets its jobs when a poll fails completely, and waits for ever; the watchdog notices."""
    made = study(JOB)
    made.hold(JOB)
    run = made.start("--stall", "0.75")
    made.until_held(JOB)
    made.cluster.kill("slurmctld")
    time.sleep(30)
    made.until("a poll that fails", lambda: "Falling back to 'sacct'" in made.terminal, 120)
    time.sleep(2)
    made.cluster.start()
    made.release(JOB)
    assert made.finish(run) == 0
    assert "it has lost track of them" in made.terminal
    assert "results of jobs that Snakemake had lost are kept: 1." in made.terminal
    happened = "Snakemake loses track of its jobs, which go on; `anchored run` notices, keeps their results and continues"
    row = made.row("The controller is away for 30 s", happened)
    assert row.again == 0
    record(row)


def test_snakemake_is_killed(study: Make, record: Callable[[Row], None]):
    """Jobs go on without it; what they finish is kept."""
    made = study(JOB)
    made.hold(JOB)
    run = made.start()
    made.until_held(JOB)
    made.kill(made.main_snakemake())
    made.until("the wait for the job", lambda: "waiting for 1 jobs of an earlier run" in made.terminal)
    made.release(JOB)
    assert made.finish(run) == 0
    assert "Snakemake was killed (signal 9)" in made.terminal
    assert "results of jobs that Snakemake had lost are kept: 1." in made.terminal
    row = made.row("Snakemake is killed (SIGKILL)", "its jobs go on; `anchored run` waits for them and continues")
    assert row.again == 0
    record(row)


def test_snakemake_and_its_launcher_are_killed(study: Make, record: Callable[[Row], None]):
    """As when the login node goes down; one job ends meanwhile, the other leaves half a file behind, as some file systems do."""
    made = study(JOB, OTHER)
    made.hold(JOB)
    made.hold(OTHER)
    run = made.start()
    made.until_held(JOB)
    made.until_held(OTHER)
    snakemake, struck = made.main_snakemake(), made.slurm_job(OTHER)
    run.kill()
    run.wait()
    made.kill(snakemake)
    made.cluster.run("scancel", "--signal=KILL", struck)
    made.until("the end of the struck job", lambda: made.state(struck) not in ("RUNNING", "COMPLETING"), 60, running=False)
    folder = made.path / "results" / "runs" / OTHER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.parquet").write_bytes(made.undisturbed[f"results/runs/{OTHER}/predictions.parquet"][:1000])
    (folder / "record.json").write_text('{"key": ')
    made.release(JOB)
    made.release(OTHER)
    again = made.start()
    assert made.finish(again) == 0
    assert "Snakemake's lock is stale" in made.terminal
    happened = "the next start unlocks, keeps what is whole and continues the rest"
    row = made.row("Snakemake, its launcher and a job are killed; half a result is left", happened)
    assert row.again == 1
    record(row)


def test_ctrl_c_is_pressed(study: Make, record: Callable[[Row], None]):
    made = study(JOB, OTHER)
    made.hold(JOB)
    made.hold(OTHER)
    run = made.start()
    made.until_held(JOB)
    made.until_held(OTHER)
    number = made.slurm_job(JOB)
    run.send_signal(signal.SIGINT)
    assert made.finish(run) == 130
    assert made.state(number) == "CANCELLED"
    assert "interrupted; run the same command again to continue." in made.terminal
    made.release(JOB)
    made.release(OTHER)
    assert made.finish(made.start()) == 0
    row = made.row("Ctrl-C, and the same command again", "all jobs are cancelled; they continue where they were")
    assert row.again == 2
    record(row)


def test_the_disk_is_full(study: Make, record: Callable[[Row], None]):
    """A small file system in the place of work/: the resume state does not fit."""
    made = study(JOB)
    work = made.path / "work"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(work)], capture_output=True, check=False).returncode:
        unavailable(MARKER, "this machine does not let the tests mount a small file system.")
    try:
        made.hold(JOB)
        run = made.start(more=("--retries", "0"))
        made.until_held(JOB)
        filler = work / "filler"
        with filler.open("wb", buffering=0) as stream:
            _fill(stream)
        made.release(JOB)
        assert made.finish(run) == 1
        assert "no space left on device" in made.terminal
        assert "1 step failed" in made.terminal
        filler.unlink()
        assert made.finish(made.start()) == 0
    finally:
        subprocess.run(["umount", "--lazy", str(work)], check=True)
    row = made.row("The disk of a node is full", "the step fails with this reason; after freeing space it continues")
    assert row.again == 1
    record(row)


def test_the_commands_of_the_page_work_on_a_cluster(study: Make):
    made = study(JOB)
    for command in [command for command in COMMANDS if "slurm" in command]:
        made.call(command)


def _fill(stream: FileIO) -> None:
    """Writes until the file system is full."""
    with contextlib.suppress(OSError):
        while stream.write(b"x" * 4096):
            pass
