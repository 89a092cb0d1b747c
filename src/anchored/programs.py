"""Programs that the package calls: engines, git, those of a cluster."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from anchored.errors import EnvironmentFailure

_SECONDS = 60


def find(program: str) -> str | None:
    """A program of the environment that runs this, else of PATH."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.is_file() else shutil.which(program)


def find_engine(program: str) -> str:
    """An engine, as `find` does.

    Raises:
        EnvironmentFailure: it is not installed.
    """
    found = find(program)
    if found is None:
        raise EnvironmentFailure(f"{program} is not installed.", 'run `make install`, or `pip install "anchored[engines]"`.')
    return found


def said(command: Sequence[str], folder: Path) -> str | None:
    """What a program printed; None where it is missing or failed."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
