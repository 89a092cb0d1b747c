"""Versions against the lock, on the packages that are installed here."""

from importlib import metadata

import pytest
from found import only

from anchored.doctor.finding import ERROR, OK, WARNING, Patient
from anchored.doctor.packages import check, compare, read_lock

NUMPY = metadata.version("numpy")


def test_comments_and_packages_of_other_systems_are_left_out():
    text = '# written by hand\nnumpy==2.4.6\nwinshell==1.0; sys_platform == "win32"\n\npolars==2.1.0  # fast\n'
    assert read_lock(text) == {"numpy": "2.4.6", "polars": "2.1.0"}


def test_a_local_version_is_the_same_version():
    """The index of torch's CPU builds calls them 2.13.0+cpu."""
    assert compare({"torch": metadata.version("torch").split("+")[0]}) == ([], {})


def test_the_same_versions_are_ok(patient: Patient):
    (patient.root / "requirements.lock").write_text(f"numpy=={NUMPY}\n")
    found = only(check(patient), "packages")
    assert (found.status, found.message) == (OK, "all 1 as in requirements.lock")


def test_another_version_is_a_warning_that_names_both(patient: Patient):
    (patient.root / "requirements.lock").write_text("numpy==1.0.0\n")
    found = only(check(patient), "packages")
    assert found.status == WARNING
    assert f"1 of 1 versions differ from requirements.lock: numpy {NUMPY} (lock 1.0.0)" in found.message
    assert "make install" in found.hint


@pytest.mark.parametrize(("name", "status"), [("safetensors", ERROR), ("no-such-package", WARNING)])
def test_a_missing_package(patient: Patient, monkeypatch: pytest.MonkeyPatch, name: str, status: str):
    """What a step imports is an error, anything else may be an engine's that nobody uses here."""
    known = metadata.version

    def version(asked: str) -> str:
        if asked == "safetensors":
            raise metadata.PackageNotFoundError(asked)
        return known(asked)

    monkeypatch.setattr(metadata, "version", version)
    (patient.root / "requirements.lock").write_text(f"{name}==1.0\n")
    found = only(check(patient), "packages")
    assert (found.status, name in found.message) == (status, True)


def test_without_a_lock_nothing_is_claimed(patient: Patient):
    assert only(check(patient), "packages").status == WARNING


def test_python_is_named(patient: Patient):
    assert only(check(patient), "python").message.startswith("3.")
