"""The plan against its configuration, and against the disk."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from found import only

from anchored.cost.work import plan_work
from anchored.doctor import disk
from anchored.doctor.finding import ERROR, OK, WARNING, Patient
from anchored.doctor.planned import check
from anchored.errors import ConfigError

CONFIG = Path(__file__).parents[1] / "mini.yaml"


@pytest.fixture
def configured(patient: Patient) -> Path:
    """The configuration, at the place where the plan's name says that it is."""
    folder = patient.root / "config"
    folder.mkdir()
    return Path(shutil.copy(CONFIG, folder / "mini.yaml"))


def test_a_plan_of_its_configuration_is_ok(patient: Patient, configured: Path):
    found = only(check(patient), "plan")
    assert found.status == OK
    assert f"as {configured} says" in found.message


def test_a_plan_that_was_not_compiled_again_is_an_error_of_the_configuration(patient: Patient, configured: Path):
    """Also what `dvc exp run -S plan.json:...` leaves behind."""
    configured.write_text(configured.read_text().replace("epochs: ", "epochs: 1"))
    found = only(check(patient), "plan")
    assert (found.status, found.exit_code) == (ERROR, ConfigError.exit_code)
    assert "run `anchored plan --config" in found.hint


def test_without_the_configuration_nothing_is_claimed(patient: Patient):
    assert only(check(patient), "plan").status == WARNING


def test_room_for_a_small_plan(patient: Patient):
    found = only(disk.check(patient), "disk")
    assert found.status == OK
    assert "DVC" not in found.message
    (patient.root / ".dvc").mkdir()
    assert "DVC's cache as much again" in only(disk.check(patient), "disk").message


def test_a_plan_larger_than_the_disk_is_an_error(patient: Patient):
    """A thousand times a thousand million scenes are petabytes: no machine of a tester has room for them."""
    plan = copy.deepcopy(patient.plan)
    assert plan is not None
    name = next(name for name, entry in plan["datasets"].items() if entry["reader"] == "digitscenes")
    plan["datasets"][name]["train"] = 10**12
    found = only(disk.check(replace(patient, plan=plan)), "disk")
    assert found.status == ERROR
    assert " TB" in found.message


def test_room_for_the_results_but_not_for_copies_is_a_warning(patient: Patient, monkeypatch: pytest.MonkeyPatch):
    needed = disk.missing_bytes(patient, plan_work(patient.plan, patient.paths))
    used = shutil.disk_usage(patient.root)._replace(free=needed + 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: used)
    assert only(disk.check(patient), "disk").status == OK
    (patient.root / ".dvc").mkdir()
    assert only(disk.check(patient), "disk").status == WARNING


def test_what_is_written_needs_no_room(patient: Patient):
    work = plan_work(patient.plan, patient.paths)
    before = disk.missing_bytes(patient, work)
    (dataset,) = [job for job in work if job[0] == "datasets"][:1]
    made = disk.outputs(*dataset, patient.paths)[0]
    made.parent.mkdir(parents=True)
    made.touch()
    assert before - disk.missing_bytes(patient, work) == sum(work[dataset].disk.values())
