"""What `anchored doctor` says of SLURM, on a real one."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing_programs
from requirement import unavailable

from anchored.doctor.cluster import check
from anchored.doctor.finding import OK, WARNING, Finding, Patient
from anchored.paths import Paths

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing := missing_programs():
        unavailable("slurm", f"{', '.join(missing)} missing: install slurm-wlm and munge")
    made = Cluster(Path(tmp_path_factory.mktemp("doctor")))
    yield made.start()
    made.stop(purge=True)


def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str]) -> Finding:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, environment[name])
    (found,) = [finding for finding in check(Patient(Paths(tmp_path), tmp_path / "plan.json", None)) if finding.check == "slurm"]
    return found


def test_a_cluster_without_accounts_needs_a_line_in_the_profile(slurm: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The plug-in asks `sacct` wherever that program is, hears nothing, and takes finished jobs for lost."""
    found = said(monkeypatch, tmp_path, slurm.environment)
    assert found.status == WARNING
    assert "it keeps no accounts" in found.message
    assert "slurm-status-command: squeue" in found.hint
    assert "MinJobAge must then be 120 s or more (here 3600 sec)" in found.hint
    profile = tmp_path / "profiles" / "slurm" / "profile.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text("executor: slurm\nslurm-status-command: squeue\n")
    assert said(monkeypatch, tmp_path, slurm.environment).status == OK


def test_a_controller_that_does_not_answer_is_a_warning(slurm: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    settings = Path(slurm.environment["SLURM_CONF"])
    # Beside the original: it names other files there. Nobody listens on the port of discarded bytes.
    elsewhere = settings.with_name("elsewhere.conf")
    elsewhere.write_text(re.sub(r"(?m)^(SlurmctldPort)=.*$", r"\1=9", settings.read_text()))
    found = said(monkeypatch, tmp_path, slurm.environment | {"SLURM_CONF": str(elsewhere)})
    assert (found.status, "does not answer" in found.message) == (WARNING, True)


def test_without_sbatch_jobs_run_here(slurm: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    found = said(monkeypatch, tmp_path, slurm.environment | {"PATH": str(tmp_path)})
    assert (found.status, found.message) == (OK, "no sbatch here: jobs run on this machine")
