"""Which engine works here, and which one knows the results: one checkout is driven by one engine at a time."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from anchored.doctor.finding import Finding, Patient, error, ok, warning
from anchored.processes import running

SNAKEMAKE, DVC = "Snakemake", "DVC"


@dataclass(frozen=True)
class Hold:
    """An engine that holds a checkout.

    Attributes:
        engine: its name.
        pids: processes of this machine that run it; none for a lock that was left behind, or is another machine's.
        place: the lock.
    """

    engine: str
    pids: tuple[int, ...]
    place: Path


def holds(root: Path) -> list[Hold]:
    """The locks of both engines that are taken."""
    found = []
    locks = root / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        found.append(Hold(SNAKEMAKE, tuple(running("snakemake", root)), locks))
    jobs = _dvc_jobs(root / ".dvc" / "tmp" / "rwlock")
    lock = root / ".dvc" / "tmp" / "lock"
    if jobs or _is_locked(lock):
        found.append(Hold(DVC, tuple(jobs or running("dvc", root)), lock))
    return found


def busy(root: Path) -> Iterator[Finding]:
    """An error for every engine that holds the checkout: for commands that need it for themselves."""
    for hold in holds(root):
        yield _held(hold, alone=True)


def check(patient: Patient) -> Iterator[Finding]:
    """Locks, and who keeps the books of the results."""
    found = holds(patient.root)
    if len(found) == 2 and all(hold.pids for hold in found):
        pids = " and ".join(f"{hold.engine} (process {hold.pids[0]})" for hold in found)
        yield error("engines", f"{pids} work in this checkout at the same time.", "stop one of them; records tell what is whole.")
    else:
        yield from (_held(hold, alone=False) for hold in found)
    yield from _books(patient)


def _held(hold: Hold, *, alone: bool) -> Finding:
    make = error if alone else warning
    if hold.pids:
        what = f"{hold.engine} works in this checkout (process {hold.pids[0]})"
        return make("engines", f"{what}.", "wait for it, or stop it; start no other engine here meanwhile.")
    what = f"a run of {hold.engine} left its lock behind, or goes on on another machine: {hold.place}."
    undo = "`snakemake --unlock`" if hold.engine == SNAKEMAKE else f"remove {hold.place}"
    return make("engines", what, f"if no other machine runs it, {undo}.")


def _books(patient: Patient) -> Iterator[Finding]:
    results = patient.paths.results
    if not any((results / name).is_dir() for name in ("data", "backbones", "fim", "runs")):
        return
    metadata = patient.root / ".snakemake" / "metadata"
    by_snakemake = metadata.is_dir() and any(metadata.iterdir())
    by_dvc = (patient.root / "dvc.lock").is_file()
    match by_snakemake, by_dvc:
        case True, True:
            yield ok("books", "both engines have records of results; `snakemake -n` and `dvc status` say whether of these")
        case True, False:
            yield ok("books", "Snakemake made the results; before DVC, run `anchored adopt --from snakemake`")
        case False, True:
            yield ok("books", "DVC made the results, or pulled them; before Snakemake, run `anchored adopt --from dvc`")
        case _:
            yield warning(
                "books",
                "no engine knows the results: commands made them, or they were copied here.",
                "`snakemake --touch --forceall` makes Snakemake take them as they are, where the check `results` is ok.",
            )


def _dvc_jobs(file: Path) -> list[int]:
    """Living processes in DVC's list of files that are being read and written."""
    try:
        entries = json.loads(file.read_text())
    except (OSError, ValueError):
        return []
    readers = [holder for holders in entries.get("read", {}).values() for holder in holders]
    pids = {holder["pid"] for holder in (*readers, *entries.get("write", {}).values())}
    return sorted(pid for pid in pids if _lives(pid))


def _is_locked(file: Path) -> bool:
    """Whether a process holds the lock on DVC's file, which stays there when none does."""
    try:
        import fcntl

        with file.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, ImportError):
        return False
    except OSError:
        return True
    return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


