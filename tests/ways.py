"""The miniature study, computed in each of the ways that README.md names, once a session. Tests must not change any of them.

A plugin of pytest, since folders of tests share these fixtures; tests/conftest.py names it.
"""

import dataclasses
import getpass
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from built_image import Image, built_image
from checkout import HERE, REPOSITORY, Checkout, check_out
from cluster import Cluster, Hardware, missing_programs
from observer import Observer
from page import PROFILE, Followed, commands, edit_profile, follow
from requirement import unavailable

MINI = (HERE / "mini.yaml").read_text()
QUICK = HERE.parent / "slurm" / "quick"
"""A profile that asks for the state of jobs more often than a user would."""
LATER = ("--groups", "--slurm-efficiency-report")
"""Commands of docs/cluster.md that need jobs which are still to be run."""
LONG = 1800


@dataclass(frozen=True)
class Way:
    """One of the ways.

    Args:
        name: as a table calls it.
        command: what a user types.
        fixture: the checkout in which it was typed.
        marker: what tests of it are marked with.
    """

    name: str
    command: str
    fixture: str
    marker: str


WAYS = (
    Way("on one machine", "snakemake --cores 2", "by_snakemake", "workflow"),
    Way("DVC", "dvc repro", "by_dvc", "workflow"),
    Way("SLURM, every step a job", "snakemake --workflow-profile profiles/slurm", "by_slurm", "slurm"),
    Way("in the image", "snakemake --cores 2 --sdm apptainer", "in_image", "containers"),
    Way("in the image, through SLURM", "snakemake --workflow-profile profiles/slurm --sdm apptainer", "in_image_by_slurm",
        "containers"),
)  # fmt: skip


@pytest.fixture(scope="session")
def by_snakemake(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """After `snakemake`."""
    made = check_out(tmp_path_factory.mktemp("snakemake") / "checkout", MINI)
    made.run("snakemake", "--cores", "2")
    return made


@pytest.fixture(scope="session")
def by_dvc(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """After `dvc repro`."""
    made = check_out(tmp_path_factory.mktemp("dvc") / "checkout", MINI)
    made.run("dvc", "repro")
    return made


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A SLURM of two nodes with GPUs, and accounting."""
    if missing := missing_programs(accounting=True):
        unavailable("slurm", f"there is no {', '.join(missing)}: run `.ci/install-slurm --accounting`.")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(folder, Hardware(cpus=8, memory=128_000, gpu_type="a100"), accounting=True)
    try:
        yield cluster.start()
    finally:
        cluster.stop(purge=True)


@pytest.fixture(scope="session")
def followed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """After everything that docs/cluster.md says, in its order."""
    made = _for_cluster(cluster, tmp_path_factory.mktemp("slurm") / "checkout")
    (made.path / "plans").mkdir()
    shutil.copy(REPOSITORY / "plans" / "paper.json", made.path / "plans")
    with Observer(cluster.environment["SLURM_CONF"]) as observer:
        session = [(block, follow(made, block)) for block in commands() if not any(part in block for part in LATER)]
    return Followed(made, session, observer.moments)


@pytest.fixture(scope="session")
def by_slurm(followed: Followed) -> Checkout:
    """After `snakemake` with the profile for SLURM, edited as its page says."""
    return followed.checkout


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image of this checkout."""
    with built_image() as made:
        yield made


@pytest.fixture(scope="session")
def in_image(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """After `snakemake` with every step in the SIF."""
    made = check_out(tmp_path_factory.mktemp("image") / "checkout", MINI)
    made.run("snakemake", "--cores", "2", "--sdm", "apptainer", "--config", f"container={image.sif}", timeout=LONG)
    return made


@pytest.fixture(scope="session")
def in_image_by_slurm(image: Image, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The same with the profile for SLURM."""
    made = _for_cluster(cluster, tmp_path_factory.mktemp("image-slurm") / "checkout")
    made.run("snakemake", "--workflow-profile", PROFILE.parent, "--sdm", "apptainer", "--config", f"container={image.sif}",
             timeout=LONG)  # fmt: skip
    return made


def _for_cluster(cluster: Cluster, path: Path) -> Checkout:
    made = check_out(path, MINI)
    variables = {"SNAKEMAKE_PROFILE": str(QUICK), "USER": getpass.getuser()}
    made = dataclasses.replace(made, variables=cluster.environment | variables)
    edit_profile(made)
    return made
