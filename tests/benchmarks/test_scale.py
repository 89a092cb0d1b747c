"""benchmarks/scale.py runs, in tiny form, and docs/scale.md shows what it last measured."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import missing_programs
from requirement import unavailable

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from scaling import page, study

REPOSITORY = Path(__file__).parents[2]
BENCHMARK = REPOSITORY / "benchmarks" / "scale.py"
PAGE, RESULT = REPOSITORY / "docs" / "scale.md", REPOSITORY / "benchmarks" / "scale.json"


def run(*parts: str) -> str:
    """What the benchmark prints."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--quick", "--parts", *parts], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def rows(text: str, part: str) -> list[list[str]]:
    """The lines of a part's table, without its head."""
    block = re.search(rf"<!-- {part} -->(.*?)<!-- end -->", text, re.DOTALL)
    assert block, f"no table of {part}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block[1].splitlines() if line.startswith("|")][2:]


@pytest.mark.workflow
def test_planning_and_tables_are_measured():
    printed = run("planning", "tables", "dvc")
    assert [row[0] for row in rows(printed, "planning")] == ["50", "100"]
    assert [row[:2] for row in rows(printed, "tables")] == [["50", "50"]]
    assert [row[0] for row in rows(printed, "dvc")] == ["50"]


@pytest.mark.slurm
def test_the_simulated_cluster_runs_every_job():
    missing = missing_programs()
    if missing:
        unavailable("slurm", f"this machine lacks {', '.join(missing)}")
    printed = run("cluster", "engine")
    ((jobs, gpus, *_, measured, ratio, _held),) = rows(printed, "cluster")
    assert (jobs, gpus) == ("66", "16")
    assert float(ratio) >= 0.9
    assert int(measured) >= 18
    assert [row[0] for row in rows(printed, "engine")] == ["4"]


def test_the_page_shows_what_was_measured():
    """Nothing in its tables is written by hand."""
    found, text = json.loads(RESULT.read_text()), PAGE.read_text()
    assert page.marks(text) == found.keys()
    assert page.with_results(text, found) == text, "run `python benchmarks/scale.py --write` and commit what it writes"


def test_a_study_for_the_page_is_as_large_as_it_says():
    plan = study.plan_of(4 * study.STEP)
    assert len(plan["cells"]) == len(plan["baseline"]) + len(plan["anchored"]) == 4 * study.STEP
    with pytest.raises(ValueError, match="51 is no multiple of 50"):
        study.plan_of(51)
