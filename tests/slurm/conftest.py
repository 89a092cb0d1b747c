"""A cluster for the tests of this folder, and the miniature study run on it as docs/cluster.md says."""

import dataclasses
import getpass
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import REPOSITORY, Checkout, check_out
from cluster import Cluster, Hardware, missing_programs
from observer import Observer
from page import PROFILE, Followed, command, commands, edit_profile, follow
from requirement import unavailable

HERE = Path(__file__).parent
MINI = (HERE.parent / "workflow" / "mini.yaml").read_text()

# They need jobs that are still to be run; see `bundled`.
LATER = ("--groups", "--slurm-efficiency-report")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes with GPUs, and accounting."""
    if missing := missing_programs(accounting=True):
        unavailable("slurm", f"there is no {', '.join(missing)}: run `.ci/install-slurm --accounting`.")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(folder, Hardware(cpus=8, memory=128_000, gpu_type="a100"), accounting=True)
    try:
        yield cluster.start()
    finally:
        cluster.stop(purge=True)


@pytest.fixture(scope="session")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The miniature study after `snakemake` on this machine; tests must not change it."""
    made = check_out(tmp_path_factory.mktemp("here") / "checkout", MINI)
    made.run("snakemake", "--cores", "2")
    return made


@pytest.fixture(scope="session")
def followed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """The miniature study after everything that docs/cluster.md says, in its order; tests must not change it."""
    made = check_out(tmp_path_factory.mktemp("cluster") / "checkout", MINI)
    variables = {"SNAKEMAKE_PROFILE": str(HERE / "quick"), "USER": getpass.getuser()}
    made = dataclasses.replace(made, variables=cluster.environment | variables)
    (made.path / "plans").mkdir()
    shutil.copy(REPOSITORY / "plans" / "paper.json", made.path / "plans")
    edit_profile(made)
    with Observer(cluster.environment["SLURM_CONF"]) as observer:
        session = [(block, follow(made, block)) for block in commands() if not any(part in block for part in LATER)]
    return Followed(made, session, observer.moments)


@pytest.fixture(scope="session")
def bundled(followed: Followed, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """A copy in which the FIM and one job were made again: its shards as a group; the job with too little memory at first, while
    Snakemake asks the controller for the jobs' states.
    """
    copy = followed.checkout.copy(tmp_path_factory.mktemp("bundled") / "checkout")
    for folder in ("shards", "fim", "runs/res-resnet-erm-1"):
        shutil.rmtree(copy.path / "results" / folder)
    session = [(block := command("--groups"), follow(copy, block))]
    copy.edit(str(PROFILE), "\n  finetune_baseline: *gpu\n", "\n  finetune_baseline: {mem_mb: attempt * 350, runtime: 30}\n")
    copy.edit(str(PROFILE), "\n# slurm-status-command: squeue\n", "\nslurm-status-command: squeue\n")
    session += [(block := command("--slurm-efficiency-report"), follow(copy, block))]
    return Followed(copy, session, [])
