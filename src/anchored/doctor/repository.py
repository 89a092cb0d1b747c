"""The state of git: records name the commit, DVC needs a repository."""

from collections.abc import Iterator

from anchored.doctor.finding import Finding, Patient, ok, warning
from anchored.programs import said

CODE = ("src", "Snakefile", "workflow", "dvc.yaml", "plan.json", "requirements.lock")


def check(patient: Patient) -> Iterator[Finding]:
    """Whether the checkout is one, of which commit, and whether it is part of another repository."""
    commit = said(["git", "rev-parse", "--short", "HEAD"], patient.root)
    if commit is None:
        yield warning(
            "git",
            f"{patient.root.resolve()} is no git repository with a commit: records cannot name the code, DVC does not run.",
            "`git clone` it, or `git init` and commit.",
        )
        return
    above = said(["git", "rev-parse", "--show-superproject-working-tree"], patient.root)
    if above:
        yield warning(
            "git",
            f"this checkout is a submodule of {above}: commits of tables and of dvc.lock go here first, then there.",
            "`git submodule update` in the other repository would bring back the older commit.",
        )
    top = said(["git", "rev-parse", "--show-prefix"], patient.root)
    if top:
        yield warning(
            "git",
            f"this folder is {top} of a larger repository; DVC wants its folder at the top of one.",
            "clone the study as a repository of its own.",
        )
    present = [name for name in CODE if (patient.root / name).exists()]
    changed = (said(["git", "status", "--porcelain", "--", *present], patient.root) or "").splitlines()
    if changed:
        yield warning(
            "git",
            f"{len(changed)} files of code or plan differ from commit {commit}; records will say so.",
            "commit them before a run that others shall repeat.",
        )
    elif not above and not top:
        yield ok("git", f"commit {commit}, code and plan unchanged")
