"""How much memory a process can still take: what the kernel has left, and what its control groups (a container, a job) leave it.

Files in the page cache count as free in both, for the kernel gives them up: packed stores are read through it.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Files of a group's limit and use, and names in its memory.stat of cached files and of the part of them that is no file on a disk.
_SECOND = ("memory.max", "memory.current", "file", "shmem")
_FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "total_shmem")


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes; None where the system does not tell, as outside of Linux.

    Args:
        root: below which `proc` and `sys` lie.
    """
    found = [*_kernel(root), *_groups(root)]
    return max(min(found), 0) if found else None


def _kernel(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024


def _groups(root: Path) -> Iterator[int]:
    """What each group with a limit leaves, the process's own and all above it."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        mount, names = (root / "sys/fs/cgroup", _SECOND) if not controllers else (root / "sys/fs/cgroup/memory", _FIRST)
        path = PurePosixPath(name.lstrip("/"))
        # A container sees its own group as the top, whatever name the group has outside.
        for folder in (mount / path, *(mount / above for above in path.parents)):
            yield from _left(folder, *names)


def _left(folder: Path, limit: str, used: str, cached: str, shared: str) -> Iterator[int]:
    bounds, uses = _lines(folder / limit), _lines(folder / used)
    if bounds and uses and bounds[0].isdigit():  # no limit is "max"
        stat = dict(line.split() for line in _lines(folder / "memory.stat"))
        files = int(stat.get(cached, 0)) - int(stat.get(shared, 0))
        yield int(bounds[0]) - int(uses[0]) + files


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
