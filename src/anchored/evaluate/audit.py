"""Every cell of the plan stands in its job's file, and nothing else does.

A mean over the runs that happen to exist is the commonest silent error of a sweep. The plan says what must exist; a
missing, a foreign and an unreadable result all stop the evaluation with the command that repairs it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from anchored.errors import InputError


@dataclass(frozen=True)
class Audit:
    """The differences between a plan and its files; `missing` and `foreign` hold (cell, job) pairs."""

    expected: int
    jobs: int
    absent_jobs: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]
    foreign: tuple[tuple[str, str], ...]

    def require_no_foreign(self) -> None:
        """Raises InputError if a file holds a cell that the plan does not put there."""
        if self.foreign:
            cell, job = self.foreign[0]
            raise InputError(
                f"results/runs/{job}/predictions.parquet holds cell {cell}, which the plan does not put there "
                f"({len(self.foreign)} such cells in {len({job for _, job in self.foreign})} files).",
                f"the file belongs to another plan: remove results/runs/{job} and run `anchored finetune {job}`.",
            )

    def require_complete(self) -> None:
        """Raises InputError if a cell of the plan has no predictions."""
        if not self.missing:
            return
        jobs = list(dict.fromkeys(job for _, job in self.missing))
        files = f", {len(self.absent_jobs)} of {self.jobs} files do not exist" if self.absent_jobs else ""
        more = f" and {len(jobs) - 1} more jobs" if len(jobs) > 1 else ""
        raise InputError(
            f"results/runs: {len(self.missing)} of {self.expected} cells of the plan have no predictions{files}; "
            f"first {listing(cell for cell, _ in self.missing)}.",
            f"run `anchored finetune {jobs[0]}`{more}, or `anchored run` for all that is missing.",
        )


def audit(expected: Mapping[str, Sequence[str]], found: Mapping[str, Collection[str] | None]) -> Audit:
    """Compares the cells each job should hold with those its file holds (None: there is no file)."""
    absent = tuple(job for job in expected if found.get(job) is None)
    held = {job: set(found.get(job) or ()) for job in expected}
    missing = tuple((cell, job) for job, cells in expected.items() for cell in cells if cell not in held[job])
    foreign = tuple((cell, job) for job, cells in expected.items() for cell in sorted(held[job] - set(cells)))
    return Audit(sum(map(len, expected.values())), len(expected), absent, missing, foreign)


def listing(names: Iterable[str], limit: int = 3) -> str:
    """At most `limit` names, and how many more there are."""
    everything = list(names)
    shown = ", ".join(everything[:limit])
    return shown if len(everything) <= limit else f"{shown} and {len(everything) - limit} more"
