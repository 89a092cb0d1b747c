"""Records against the bytes beside them, on the miniature study: its datasets, backbones and FIMs are made, its runs are not."""

import copy
import json
import shutil
from pathlib import Path

import pytest

from anchored.doctor.finding import ERROR, OK, WARNING, Finding, Patient
from anchored.doctor.results import check
from anchored.paths import Paths


@pytest.fixture
def patient(mini_copy: Paths) -> Patient:
    plan_file = mini_copy.root / "plan.json"
    return Patient(mini_copy, plan_file, json.loads(plan_file.read_text()))


def finding(patient: Patient) -> Finding:
    (found,) = check(patient)
    return found


def test_what_is_made_and_what_is_not_is_counted(patient: Patient):
    assert patient.plan is not None
    made = sum(len(patient.plan[kind]) for kind in ("datasets", "backbones", "whole", "shards", "merged"))
    runs = len(patient.plan["baseline"]) + len(patient.plan["anchored"]) + len(("evaluate", "tables"))
    found = finding(patient)
    assert found.status == OK
    assert found.message.startswith(f"{made} of {made + runs} steps are done")
    assert f"{runs} are to be run" in found.message


def test_a_damaged_file_is_an_error_that_names_the_step(patient: Patient):
    assert patient.plan is not None
    fim = next(iter(patient.plan["fims"]))
    file = patient.paths.fim(fim) / "fim.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    found = finding(patient)
    assert found.status == ERROR
    assert f"fim {fim}" in found.message or f"fim-merge {fim}" in found.message


def test_results_of_another_plan_are_a_warning(patient: Patient):
    assert patient.plan is not None
    plan = copy.deepcopy(patient.plan)
    fim = next(iter(plan["fims"]))
    plan["fims"][fim]["seed"] += 1
    found = finding(Patient(patient.paths, patient.plan_file, plan))
    assert found.status == WARNING
    assert fim in found.message


def test_a_fim_without_its_bank_cannot_be_judged_and_is_no_fault(patient: Patient):
    """What a reviewer has who pulled the FIM alone."""
    shutil.rmtree(patient.paths.results / "data")
    shutil.rmtree(patient.paths.results / "shards", ignore_errors=True)
    assert finding(patient).status == OK


def test_images_that_were_packed_elsewhere_are_no_fault(patient: Patient):
    """The record of `prepare` names raw images, which nobody pushes."""
    assert patient.plan is not None
    record = patient.paths.data(next(iter(patient.plan["datasets"]))) / "record.json"
    told = json.loads(record.read_text())
    told |= {"inputs": told["inputs"] | {"data/birds/001.jpg": "0" * 64}, "key": "0" * 64}
    record.write_text(json.dumps(told))
    assert finding(patient).status == OK
    raw = patient.root / "data" / "birds" / "001.jpg"
    raw.parent.mkdir(parents=True)
    raw.touch()
    assert finding(patient).status == WARNING


def test_looking_changes_nothing(patient: Patient):
    def state() -> dict[Path, float]:
        return {path: path.stat().st_mtime_ns for path in patient.root.rglob("*")}

    before = state()
    finding(patient)
    assert state() == before
