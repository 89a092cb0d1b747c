"""What a check of the doctor says: one line, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from anchored.errors import ConfigError, EnvironmentFailure
from anchored.paths import Paths
from anchored.plan.load import Plan

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True)
class Finding:
    """The outcome of a check.

    Attributes:
        check: what was looked at.
        status: ok, warning (works, but mind it) or error (does not work).
        message: what was found.
        hint: what to do; empty where nothing has to be done.
        exit_code: of the program, for an error.
    """

    check: str
    status: str
    message: str
    hint: str = ""
    exit_code: int = EnvironmentFailure.exit_code


@dataclass(frozen=True)
class Patient:
    """What is looked at.

    Attributes:
        paths: the checkout.
        plan_file: the compiled plan.
        plan: its content; None where it cannot be read.
    """

    paths: Paths
    plan_file: Path
    plan: Plan | None

    @property
    def root(self) -> Path:
        """The checkout's folder."""
        return self.paths.root


def ok(check: str, message: str) -> Finding:
    """Nothing has to be done."""
    return Finding(check, OK, message)


def warning(check: str, message: str, hint: str = "") -> Finding:
    """It works, with a catch."""
    return Finding(check, WARNING, message, hint)


def error(check: str, message: str, hint: str) -> Finding:
    """It does not work on this machine."""
    return Finding(check, ERROR, message, hint)


def misconfigured(check: str, message: str, hint: str) -> Finding:
    """The plan or the configuration is wrong."""
    return Finding(check, ERROR, message, hint, exit_code=ConfigError.exit_code)


def refuse(findings: Iterable[Finding]) -> None:
    """For commands that must not go on whatever the findings are about.

    Raises:
        EnvironmentFailure: with the first of the findings that is not ok.
    """
    for finding in findings:
        if finding.status != OK:
            raise EnvironmentFailure(finding.message, finding.hint)
