"""`anchored plan --cost` and `--calibrate`: from a configuration to text."""

import json
from collections.abc import Sequence
from pathlib import Path

from anchored.cost.calibrate import calibrate
from anchored.cost.estimate import cost
from anchored.cost.text import calibration_text, cost_text
from anchored.cost.throughput import built_in, load_device, save_device
from anchored.cost.work import plan_work
from anchored.paths import Paths
from anchored.plan.expand import expand
from anchored.plan.read import read_config


def plan_cost(config: Path, paths: Paths, *, slots: int, device: str | None, throughput: Path | None, as_json: bool) -> str:
    """What the plan of a configuration costs on `slots` devices, as tables or as JSON.

    Raises:
        ConfigError: the configuration or the throughput file is wrong, an architecture is unknown, or a dataset's size is.
    """
    name, rates = load_device(throughput, device)
    plan = expand(read_config(config))
    found = cost(plan, plan_work(plan, paths), name, rates, slots)
    return json.dumps(found.as_json(), indent=2) + "\n" if as_json else cost_text(found)


def plan_calibrate(config: Path, paths: Paths, records: Sequence[Path], throughput: Path | None) -> str:
    """The rates that records of steps of a plan tell, as a table; written to `throughput` where it is given.

    Raises:
        InputError: no record belongs to the plan.
        ConfigError: the configuration is wrong, or the records are of several devices.
    """
    plan = expand(read_config(config))
    found = calibrate(plan, plan_work(plan, paths), records, built_in)
    if throughput:
        save_device(throughput, found.name, found.device)
    return calibration_text(found, throughput)
