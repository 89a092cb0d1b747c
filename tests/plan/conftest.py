"""The miniature plan's jobs, and records of them from a device whose rates are known."""

import json
from pathlib import Path

import pytest
from cost_device import TRUE, unit_device

from anchored.cost.work import What, plan_work
from anchored.files import write_json
from anchored.paths import Paths
from anchored.record import planned_step


@pytest.fixture(scope="session")
def work(mini_plan):
    """Every job of the miniature plan."""
    return plan_work(mini_plan, Paths(Path("no-such-folder")))


@pytest.fixture
def records(mini_plan, work, tmp_path):
    """The folder of a finished study on a device with the rates TRUE, noiseless; the steps are longer than real ones would be."""
    device = unit_device(**TRUE)
    for job, each in work.items():
        step = planned_step(mini_plan, job[0], job[1] or "all", Paths())
        amounts = each.amounts.copy()
        del amounts[What("start")]
        seconds, measured = device.seconds(amounts), {}
        if each.step == "fim":
            again = 3.5 * min(step.entry["precision_check"], each.images)
            fisher = sum(amount * device.seconds_each(what) for what, amount in amounts.items() if what.way)
            loader = sum(amounts[What(name)] * device.seconds_each(What(name)) for name in ("views", "read"))
            alone = fisher / (each.images + again) * each.images
            measured = {f"{name}images_per_second": each.images / value for name, value in (
                ("fisher_", alone), ("loader_", loader), ("", alone + loader))}  # fmt: skip
        if each.step.startswith("finetune"):
            cells = len(mini_plan[job[0]][job[1]]["cells"])
            measured = {"cells": cells, "epochs_before_a_restart": 0, "cell_seconds": [(seconds - TRUE["setup"]) / cells] * cells}
            fit = amounts[What("fit")] * device.seconds_each(What("fit")) / cells
            measured["fit_seconds"] = [fit] * (cells - 1) if fit else []
        record = tmp_path / step.record
        write_json(record, {"step": step.step, "name": step.name, "entry": step.entry, "device": "cpu", "wall_seconds": seconds,
                            "measurements": measured})  # fmt: skip
        benchmark = tmp_path / "logs" / step.step / f"{step.name}.jsonl"
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text(json.dumps({"s": seconds + TRUE["start"]}) + "\n")
    return tmp_path / "results"
