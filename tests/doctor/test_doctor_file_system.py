"""Locks, clock and names. Odd file systems are played: one whose locks lock nothing, one without any, one that ignores case."""

import os
import time
from pathlib import Path

import pytest
from found import only

from anchored.doctor.file_system import check, clock_skew, ignores_case, locks_exclude
from anchored.doctor.finding import ERROR, OK, WARNING, Patient


def other_process_has(monkeypatch: pytest.MonkeyPatch, folder: Path, flock: str) -> None:
    """Gives every new Python process another `flock`."""
    folder.mkdir()
    code = f"import errno, fcntl, os\ndef flock(descriptor, how):\n    {flock}\nfcntl.flock = flock\n"
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


def test_this_machine_is_fine(patient: Patient):
    found = list(check(patient))
    assert {finding.check: finding.status for finding in found} == {"locks": OK, "clock": OK}


def test_nothing_is_left_behind(patient: Patient):
    before = sorted(patient.root.rglob("*"))
    list(check(patient))
    assert sorted(patient.root.rglob("*")) == before


def test_locks_that_lock_nothing_are_an_error(patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Two engines would write the same result at the same time, each sure to be alone."""
    assert locks_exclude(tmp_path)
    other_process_has(monkeypatch, tmp_path / "site", "return None")
    assert not locks_exclude(tmp_path)
    assert only(check(patient), "locks").status == ERROR


def test_a_file_system_without_locks_is_an_error(patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    other_process_has(monkeypatch, tmp_path / "site", "raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))")
    found = only(check(patient), "locks")
    assert found.status == ERROR
    assert "No locks available" in found.message


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_a_file_server_that_goes_wrong(tmp_path: Path, hours: int):
    assert clock_skew(tmp_path, now=lambda: time.time() - 3600 * hours) == pytest.approx(3600 * hours, abs=60)


def test_a_skewed_clock_is_a_warning(patient: Patient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("anchored.doctor.file_system.clock_skew", lambda folder: -61.0)
    found = only(check(patient), "clock")
    assert found.status == WARNING
    assert "61 s behind this machine's clock" in found.message


def test_names_that_differ_by_case(patient: Patient, tmp_path: Path):
    assert not ignores_case(tmp_path)
    # The other spelling finds a file.
    (tmp_path / f"CASE-{os.getpid()}").touch()
    assert ignores_case(tmp_path)
