"""The state of git, in real repositories."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from anchored.doctor.finding import OK, WARNING, Finding, Patient
from anchored.doctor.repository import check
from anchored.paths import Paths


@pytest.fixture(autouse=True)
def _nobodys_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "protocol.file.allow=always")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def committed(patient: Patient) -> Patient:
    git(patient.root, "init", "--quiet")
    git(patient.root, "add", "--all")
    git(patient.root, "commit", "--message", "study")
    return patient


def findings(patient: Patient) -> list[Finding]:
    return list(check(patient))


def test_a_clean_checkout_is_named(committed: Patient):
    (found,) = findings(committed)
    assert found.status == OK
    assert found.message.endswith("code and plan unchanged")


def test_a_changed_plan_is_a_warning(committed: Patient):
    committed.plan_file.write_text("{}")
    (found,) = findings(committed)
    assert (found.status, "1 files of code or plan differ" in found.message) == (WARNING, True)


def test_other_files_do_not_count(committed: Patient):
    (committed.root / "notes.txt").touch()
    assert [found.status for found in findings(committed)] == [OK]


def test_a_folder_without_git_is_a_warning(patient: Patient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(patient.root.parent))
    (found,) = findings(patient)
    assert "is no git repository" in found.message


def test_a_submodule_is_a_warning(committed: Patient, tmp_path_factory: pytest.TempPathFactory):
    above = tmp_path_factory.mktemp("above")
    git(above, "init", "--quiet")
    git(above, "submodule", "add", str(committed.root), "study")
    (found,) = findings(replace(committed, paths=Paths(above / "study")))
    assert f"a submodule of {above}" in found.message


def test_a_folder_of_a_larger_repository_is_a_warning(committed: Patient):
    inside = committed.root / "inside"
    inside.mkdir()
    (found,) = findings(replace(committed, paths=Paths(inside)))
    assert "this folder is inside/ of a larger repository" in found.message
