"""A checkout to look at, with the miniature plan."""

from pathlib import Path
from typing import Any

import pytest

from anchored.doctor.finding import Patient
from anchored.files import write_json
from anchored.paths import Paths


@pytest.fixture
def patient(tmp_path: Path, mini_plan: dict[str, Any]) -> Patient:
    """A folder with a plan and nothing else."""
    write_json(tmp_path / "plan.json", mini_plan)
    return Patient(Paths(tmp_path), tmp_path / "plan.json", mini_plan)

