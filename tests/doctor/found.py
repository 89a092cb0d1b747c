"""Looking for one finding among many."""

from collections.abc import Iterable

from anchored.doctor.finding import Finding


def only(findings: Iterable[Finding], check: str) -> Finding:
    """The one finding of that name."""
    (found,) = [finding for finding in findings if finding.check == check]
    return found
