"""`anchored doctor`: all checks, as text or as JSON. Changes nothing; probes write into `work/` and clean up."""

import json
import subprocess
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from anchored.doctor import cluster, disk, engines, file_system, links, machine, network, packages, planned, repository, results
from anchored.doctor.finding import ERROR, OK, WARNING, Finding, Patient, misconfigured, warning
from anchored.errors import AnchoredError, ConfigError, EnvironmentFailure
from anchored.paths import Paths
from anchored.plan.load import load_plan

Check = Callable[[Patient], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "packages": packages.check,
    "machine": machine.check,
    "plan": planned.check,
    "disk": disk.check,
    "files": file_system.check,
    "git": repository.check,
    "engines": engines.check,
    "links": links.check,
    "network": network.check,
    "results": results.check,
    "cluster": cluster.check,
}
_WIDTH = 120


def doctor(plan_file: Path, paths: Paths) -> list[Finding]:
    """What all checks found. A check that fails by itself says so and stops no other."""
    findings = []
    try:
        plan = load_plan(plan_file)
    except ConfigError as failure:
        plan = None
        findings.append(misconfigured("plan", failure.message, failure.hint))
    patient = Patient(paths, plan_file, plan)
    for name, check in CHECKS.items():
        findings += _asked(name, check, patient)
    return findings


def exit_code(findings: Sequence[Finding]) -> int:
    """0 without errors; 2 where only the plan or the configuration is wrong, else 5."""
    codes = {finding.exit_code for finding in findings if finding.status == ERROR}
    return EnvironmentFailure.exit_code if EnvironmentFailure.exit_code in codes else max(codes, default=0)


def as_text(findings: Sequence[Finding]) -> str:
    """A line each, what to do below it, and how many there are."""
    named, stated = max(len(finding.check) for finding in findings), len(WARNING)
    lines = []
    for finding in findings:
        indent = " " * (stated + named + 4)
        start = f"{finding.status:<{stated}}  {finding.check:<{named}}  "
        lines += _wrapped(finding.message, start, indent)
        if finding.hint:
            lines += _wrapped(finding.hint, f"{indent}-> ", f"{indent}   ")
    counts = {status: sum(finding.status == status for finding in findings) for status in (ERROR, WARNING, OK)}
    summary = f"{counts[ERROR]} errors, {counts[WARNING]} warnings, {counts[OK]} ok"
    return "\n".join([*lines, summary]) + "\n"


def as_json(findings: Sequence[Finding]) -> str:
    """The same for programs."""
    entries = [{key: getattr(finding, key) for key in ("check", "status", "message", "hint")} for finding in findings]
    return json.dumps({"schema": 1, "exit_code": exit_code(findings), "findings": entries}, indent=2) + "\n"


def _wrapped(text: str, first: str, others: str) -> list[str]:
    # Nothing is broken inside of words: commands in messages are typed by copying them.
    wrapper = textwrap.TextWrapper(
        _WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(text)


def _asked(name: str, check: Check, patient: Patient) -> Iterator[Finding]:
    try:
        yield from check(patient)
    except (AnchoredError, OSError, subprocess.SubprocessError) as failure:
        said = failure.message if isinstance(failure, AnchoredError) else str(failure)
        yield warning(name, f"could not be checked: {said.rstrip('.')}.", getattr(failure, "hint", ""))
