"""What a record says of the time its cells took: the cost of a plan is calibrated by it."""

import json
import shutil

import pytest

from anchored.finetune import step
from anchored.finetune.step import finetune
from anchored.paths import Paths


def record(paths: Paths, job: str) -> dict:
    return json.loads((paths.run(job) / "record.json").read_text())


@pytest.fixture
def paths(mini: Paths, tmp_path) -> Paths:
    """A study in which nothing is fine-tuned."""
    shutil.copytree(mini.results, tmp_path / "results")
    return Paths(tmp_path)


@pytest.mark.parametrize(("job", "cells", "fits"), [("res-resnet-1-ewc-1", 4, 0), ("res-resnet-1-linear-probe-1", 4, 2)])
def test_seconds_of_cells_are_a_part_of_the_jobs(paths, mini_plan, job, cells, fits):
    """The rest is setup. Of two penalties in two draws, two fits find their features there."""
    finetune(mini_plan, job, paths)
    found = record(paths, job)
    measured = found["measurements"]
    assert (len(measured["cell_seconds"]), len(measured["fit_seconds"])) == (cells, fits)
    assert 0 < sum(measured["cell_seconds"]) <= found["wall_seconds"] + 0.01
    assert sum(measured["fit_seconds"]) <= sum(measured["cell_seconds"])
    assert measured["epochs_before_a_restart"] == 0


def test_epochs_of_a_killed_process_are_told_apart(paths, mini_plan, monkeypatch):
    """Their time is in no record, so that record cannot calibrate anything."""
    job = "res-resnet-1-erm-1"

    def fail(*_: object) -> None:
        raise RuntimeError("killed before the results were written")

    with monkeypatch.context() as patched:
        patched.setattr(step, "_write", fail)
        with pytest.raises(RuntimeError, match="killed"):
            finetune(mini_plan, job, paths)
    finetune(mini_plan, job, paths)
    assert record(paths, job)["measurements"]["epochs_before_a_restart"] == 4 * 2
