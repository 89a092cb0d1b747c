"""The memory that a process can still take, from what Linux tells."""

from pathlib import Path

import pytest

from anchored.finetune.memory import available_memory

MEMINFO = "MemTotal:  4000 kB\nMemFree:  1000 kB\nMemAvailable:  3000 kB\n"
KERNEL = 3000 * 1024


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def second(folder: str, limit: str, used: int, *, file: int = 0, shmem: int = 0) -> dict[str, str]:
    stat = f"anon 1\nfile {file}\nshmem {shmem}\n"
    return {f"{folder}/memory.max": f"{limit}\n", f"{folder}/memory.current": f"{used}\n", f"{folder}/memory.stat": stat}


CASES = {
    "no group": ({"proc/meminfo": MEMINFO}, KERNEL),
    "group without a limit": (
        {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/job\n"} | second("sys/fs/cgroup/job", "max", 10),
        KERNEL,
    ),
    "limit of the group": (
        {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/job\n"} | second("sys/fs/cgroup/job", "1000", 400),
        600,
    ),
    "cached files are free, shared memory is not": (
        {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/job\n"} | second("sys/fs/cgroup/job", "1000", 900, file=500, shmem=100),
        500,
    ),
    "limit of a group above": (
        {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/job/step\n"}
        | second("sys/fs/cgroup/job", "1000", 400)
        | second("sys/fs/cgroup/job/step", "max", 300),
        600,
    ),
    "group of a container under the name that it has outside": (
        {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/docker/abc\n"} | second("sys/fs/cgroup", "1000", 400),
        600,
    ),
    "first version of control groups": (
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "5:cpu:/x\n4:memory:/job\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "700\n",
            "sys/fs/cgroup/memory/job/memory.stat": "total_cache 300\ntotal_shmem 0\n",
        },
        600,
    ),
    "over the limit": (
        {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/job\n"} | second("sys/fs/cgroup/job", "1000", 1400),
        0,
    ),
    "another system": ({}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_of_all_bounds_counts(tmp_path, case):
    """A job that looks at the machine's memory alone is killed by its scheduler."""
    files, expected = CASES[case]
    assert available_memory(write(tmp_path, files)) == expected
