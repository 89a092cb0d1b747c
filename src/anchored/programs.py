"""Programs that the package calls: engines."""

import shutil
import sys
from pathlib import Path

from anchored.errors import EnvironmentFailure


def find_engine(program: str) -> str:
    """An engine of the environment that runs this, else of PATH.

    Raises:
        EnvironmentFailure: it is not installed.
    """
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.is_file() else shutil.which(program)
    if found is None:
        raise EnvironmentFailure(f"{program} is not installed.", 'run `make install`, or `pip install "anchored[engines]"`.')
    return found
