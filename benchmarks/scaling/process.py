"""What a program takes: wall and CPU seconds, memory."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Used:
    """What a program and those that it started took.

    Attributes:
        wall: seconds from start to end; depends on what else the machine does.
        cpu: seconds of all cores, in the program and in the system for it.
        mib: the most memory that one process had.
    """

    wall: float
    cpu: float
    mib: int


def use(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> Used:
    """Runs a program in a folder, with this checkout's package; raises RuntimeError with its last words if it fails."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE_", "DVC_", "SLURM_"))}
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    own = {"PATH": programs, "PYTHONPATH": str(REPOSITORY / "src")}
    said, measured = folder / ".said", folder / ".used"
    began = time.perf_counter()
    with said.open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-c", _MEASURE, measured, *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, env=inherited | own | dict(environment or {}), check=False,
        )  # fmt: skip
    wall = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{said.read_text()[-3000:]}")
    cpu, most = map(float, measured.read_text().split())
    return Used(wall, cpu, int(most) // (1 << 20 if sys.platform == "darwin" else 1 << 10))


# In a small process of its own: what a program inherits at its start counts as its memory, and this one has torch.
_MEASURE = """
import os, sys
_, file, *command = sys.argv
pid = os.fork()
if not pid:
    os.execvp(command[0], command)
_, status, used = os.wait4(pid, 0)
with open(file, "w") as out:
    out.write(f"{used.ru_utime + used.ru_stime} {used.ru_maxrss}")
sys.exit(os.waitstatus_to_exitcode(status) and 1)
"""


def anchored(*arguments: str | Path) -> list[str | Path]:
    """The command line of this checkout."""
    return [sys.executable, "-c", "from anchored.cli import main; main()", *arguments]


def snakemake(*arguments: str | Path) -> list[str | Path]:
    """Snakemake of this Python."""
    return [sys.executable, "-m", "snakemake", *arguments]


def least(*found: Used) -> Used:
    """The one with the least CPU seconds: what disturbs a measurement only adds to it."""
    return min(found, key=lambda each: each.cpu)
