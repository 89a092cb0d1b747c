"""The command as a whole: its lines, its exit code, and what it does when a check itself fails."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anchored.doctor import command
from anchored.doctor.command import as_text, doctor, exit_code
from anchored.doctor.finding import Finding, Patient, error, misconfigured, ok, warning
from anchored.errors import InputError

OK, WARNING, ERROR = ok("a", "fine"), warning("b", "odd", "mind it"), error("c", "broken", "mend it")
CONFIG = misconfigured("plan", "stale", "compile it")


@pytest.mark.parametrize(
    ("findings", "code"),
    [([OK], 0), ([OK, WARNING], 0), ([WARNING, ERROR], 5), ([CONFIG, OK], 2), ([CONFIG, ERROR], 5), ([], 0)],
    ids=["ok", "warning", "error", "configuration", "both", "nothing"],
)
def test_the_exit_code_is_that_of_the_worst(findings: list[Finding], code: int):
    assert exit_code(findings) == code


def test_a_finding_is_a_line_with_what_to_do_below_it():
    assert as_text([OK, WARNING, CONFIG]).splitlines() == [
        "ok       a     fine",
        "warning  b     odd",
        "               -> mind it",
        "error    plan  stale",
        "               -> compile it",
        "1 errors, 1 warnings, 1 ok",
    ]


def test_commands_in_long_messages_stay_whole():
    hint = "run `anchored plan --config config/" + "long-" * 30 + "name.yaml`"
    assert "long-" * 30 + "name.yaml`" in as_text([warning("a", "x " * 80, hint)])


def test_a_check_that_fails_says_so_and_stops_no_other(patient: Patient, monkeypatch: pytest.MonkeyPatch):
    def broken(patient: Patient) -> Iterator[Finding]:
        yield OK
        raise InputError("scenes has no manifest.", "run `anchored prepare scenes`.")

    def unreadable(patient: Patient) -> Iterator[Finding]:
        raise PermissionError(13, "Permission denied", "results")
        yield OK

    monkeypatch.setattr(command, "CHECKS", {"first": broken, "second": unreadable, "third": lambda patient: [ERROR]})
    found = doctor(patient.plan_file, patient.paths)
    assert [(finding.check, finding.status) for finding in found] == [
        ("a", "ok"), ("first", "warning"), ("second", "warning"), ("c", "error")
    ]  # fmt: skip
    assert found[1].message == "could not be checked: scenes has no manifest."
    assert found[1].hint == "run `anchored prepare scenes`."
    assert "Permission denied" in found[2].message


def test_a_missing_plan_is_an_error_of_the_configuration_and_the_rest_is_looked_at(run_cli: Callable[..., Any], tmp_path: Path):
    done = run_cli("doctor", "--json", root=tmp_path)
    told = json.loads(done.out)
    assert (done.code, told["exit_code"], told["schema"]) == (2, 2, 1)
    checks = {finding["check"]: finding["status"] for finding in told["findings"]}
    assert checks["plan"] == "error"
    assert {"python", "torch", "locks", "links", "apptainer"} <= checks.keys()


def test_the_command_prints_text(run_cli: Callable[..., Any], patient: Patient):
    done = run_cli("doctor", root=patient.root)
    assert done.code == 0
    assert done.out.splitlines()[0].startswith("ok       python  ")
    assert done.out.splitlines()[-1].startswith("0 errors, ")
