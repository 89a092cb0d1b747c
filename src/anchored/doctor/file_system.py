"""What the steps rely on: locks that exclude, times that are those of the clock, names that differ by case.

Probes write into `work/` and remove what they wrote.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from anchored.doctor.finding import Finding, Patient, error, ok, warning

_SKEW = 2.0  # seconds; some file systems keep times in steps of two
_SECONDS = 60
# Another process: on some network file systems a lock excludes only others.
_OTHER = """
import sys
from filelock import FileLock, Timeout
try:
    FileLock(sys.argv[1], timeout=0).acquire()
except Timeout:
    print("excluded")
"""


def check(patient: Patient) -> Iterator[Finding]:
    """Everything about the folder that holds the locks and, usually, all results."""
    folder = patient.paths.work("doctor")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield _locks(folder)
        yield _clock(folder)
        yield from _case(folder)
    finally:
        with suppress(OSError):  # other files of a second doctor may be there
            folder.rmdir()
            folder.parent.rmdir()


def locks_exclude(folder: Path) -> bool:
    """Whether a second process cannot take a lock that this one holds.

    Raises:
        OSError, NotImplementedError: the file system has no locks.
    """
    path = folder / f"lock-{os.getpid()}"
    lock = FileLock(path, timeout=0)
    try:
        with lock:
            command = [sys.executable, "-c", _OTHER, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except Timeout:
        return True
    finally:
        path.unlink(missing_ok=True)
    if done.returncode:
        raise OSError(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip() == "excluded"


def clock_skew(folder: Path, now: Callable[[], float] = time.time) -> float:
    """Seconds by which the time of a file written just now is ahead of the clock; negative where it lags."""
    path = folder / f"clock-{os.getpid()}"
    before = now()
    try:
        path.write_bytes(b"")
        written = path.stat().st_mtime
    finally:
        path.unlink(missing_ok=True)
    return min(written - before, 0.0) + max(written - now(), 0.0)


def ignores_case(folder: Path) -> bool:
    """Whether names that differ by case are the same file."""
    path = folder / f"case-{os.getpid()}"
    try:
        path.write_bytes(b"")
        return path.with_name(path.name.upper()).exists()
    finally:
        path.unlink(missing_ok=True)


def _locks(folder: Path) -> Finding:
    hint = "put the checkout on a file system with locks (NFS 4, Lustre with the mount option `flock`), or run one job at a time."
    try:
        exclude = locks_exclude(folder)
    except (OSError, NotImplementedError) as failure:
        return error("locks", f"{folder.parent} has no working locks: {str(failure).rstrip('.')}.", hint)
    if not exclude:
        return error("locks", f"locks in {folder.parent} exclude nobody: two processes could write the same result.", hint)
    return ok("locks", f"a second process is kept out of {folder.parent}")


def _clock(folder: Path) -> Finding:
    skew = clock_skew(folder)
    if abs(skew) > _SKEW:
        way = "ahead of" if skew > 0 else "behind"
        return warning(
            "clock",
            f"files in {folder.parent} get times {abs(skew):.0f} s {way} this machine's clock: Snakemake compares such times.",
            "set the clocks of this machine and of the file server (NTP).",
        )
    return ok("clock", "files get the time of this machine")


def _case(folder: Path) -> Iterator[Finding]:
    if ignores_case(folder):
        yield warning(
            "names",
            f"{folder.parent} ignores case: of images whose names differ by case only one is left after unpacking.",
            "keep datasets on a file system that tells them apart.",
        )
