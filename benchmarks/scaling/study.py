"""A study of any size, as the paper's: Waterbirds, two backbones, five arms, five seeds, one cell a job.

cells = 2 backbones x 5 arms x 5 seeds x G configurations an arm
"""

from pathlib import Path
from typing import Any

import yaml

from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.plan.load import Plan
from anchored.plan.read import read_config

REPOSITORY = Path(__file__).parents[2]
PAPER = REPOSITORY / "config" / "paper.yaml"
SEEDS = 5
_STUDIES = {"waterbirds-vit": "vit-sampled", "waterbirds-resnet": "resnet-sampled"}
_ARMS = 5
STEP = len(_STUDIES) * _ARMS * SEEDS
"""Sizes of a study are multiples of this."""


def configuration(cells: int) -> dict[str, Any]:
    """The configuration of a study of `cells` cells, a multiple of `STEP`: the paper's, with other grids."""
    grid, rest = divmod(cells, STEP)
    if rest or not grid:
        raise ValueError(f"{cells} is no multiple of {STEP}.")
    paper = yaml.safe_load(PAPER.read_text())
    many = range(1, grid + 1)
    rates, penalties, strengths = ([round(unit * number, 9) for number in many] for unit in (1e-5, 1e-3, 1e-2))
    anchor = {"lr": [1e-5], "strength": strengths}
    arms = {"erm": {"lr": rates}, "linear-probe": {"c": penalties}, "l2sp": anchor, "ewc": anchor, "ewc-shuffled": anchor}
    experiments = {
        name: paper["experiments"][name]
        | {"arms": arms, "reference_lr": 1e-5, "replicates": SEEDS, "configurations_per_job": 1, "replicates_per_job": 1}
        for name in _STUDIES
    }
    return paper | {
        "name": f"scale-{cells}",
        "datasets": {name: paper["datasets"][name] for name in ("waterbirds", "imagenet")},
        "fims": {name: paper["fims"][name] for name in _STUDIES.values()},
        "experiments": experiments,
    }


def plan_of(cells: int) -> Plan:
    """The plan of that study."""
    return expand(Config.model_validate(configuration(cells)))


def paper_plan() -> Plan:
    """The plan of config/paper.yaml."""
    return expand(read_config(PAPER))
