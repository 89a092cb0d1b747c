"""Makes `synthetic_study` importable, and evaluates and reports one small study for all tests in this folder."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))

from synthetic_study import make_plan, write_study

from anchored.evaluate.step import evaluate
from anchored.paths import Paths
from anchored.report.step import tables


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Paths]:
    """A plan and the folder with all of its results; tests must not change either."""
    plan = make_plan()
    paths = write_study(tmp_path_factory.mktemp("study"), plan)
    evaluate(plan, paths)
    tables(plan, paths)
    return plan, paths
