"""Processes of this machine, and the CPUs that they may use. What asks for processes needs psutil, which every engine brings."""

import os
from contextlib import suppress
from pathlib import Path

# Those that start no work: they look, or are part of a job of another Snakemake.
_ONLY_LOOK = frozenset({"--mode", "--dry-run", "-n"})


def cpus() -> int:
    """CPUs that this process may use: a scheduler gives a job some of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def running(program: str, folder: Path) -> list[int]:
    """Processes, but for this one, that run `program` in `folder`, by name or as `python -m`; those that only look do not count."""
    import psutil

    here, found = str(folder.resolve()), []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        named = program in {Path(word).name for word in words[:2]} or words[1:3] == ["-m", program]
        if named and process.info["cwd"] == here and not _ONLY_LOOK & set(words) and process.pid != os.getpid():
            found.append(process.pid)
    return sorted(found)


def children(process: int) -> int:
    """How many processes a process started that have not ended."""
    import psutil

    count = 0
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process).children():
            with suppress(psutil.NoSuchProcess):
                count += child.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return count
