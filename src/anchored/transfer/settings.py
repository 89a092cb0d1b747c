"""What `anchored fim-transfer` does, as a typed section: the target, the fine-tuning that all arms share, and their grids.

Every F of an arm has mean 1 (`fisher/conditioning.py`), so one grid of strengths serves all arms. Two ends belong to every
arm's curve and are run once: strength 0 (free) and a backbone that does not move (frozen; strength infinity).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from anchored.errors import ConfigError
from anchored.plan.arms import Rates, Strengths
from anchored.plan.base import Count, Positive, Section

ANCHORS: Mapping[str, Mapping[str, Any]] = {
    "ewc": {"arm": "ewc", "conditioning": {"kind": "normalise", "value": None}},
    "ewc-floor": {"arm": "ewc", "conditioning": {"kind": "floor", "value": 0.1}},
    "ewc-clip": {"arm": "ewc", "conditioning": {"kind": "clip", "value": 0.99}},
    "ewc-layer-mean": {"arm": "ewc", "conditioning": {"kind": "layer-mean", "value": None}},
    "l2sp": {"arm": "l2sp", "conditioning": None},
    "ewc-shuffled": {"arm": "ewc-shuffled", "conditioning": {"kind": "normalise", "value": None}},
}
"""Arms with a strength. The conditioning `none` has no line: at strength s / mean(F) it is `ewc` at strength s."""

EWC_ARMS = ("ewc", "ewc-floor", "ewc-clip", "ewc-layer-mean")
LOW_RATE = "low-lr"
"""The arm without a penalty: a low learning rate is an anchor of its own."""
FREE, FROZEN = "free", "frozen"
"""The two ends of every curve."""
CONTROLS = ("l2sp", "ewc-shuffled", LOW_RATE)


class TransferStudy(Section):
    """The grid and the fine-tuning of a reverse-transfer study; equal for all arms."""

    seeds: Count = 3
    """Seeds of each FIM. A seed fixes the target's crops and the order of the batches; arms are paired by it."""
    train: Count = 60
    """Training crops of each photograph."""
    test: Count = 150
    """Test crops of each photograph."""
    epochs: Count = 6
    """Passes over the training crops."""
    batch: Count = 64
    """Images of a step."""
    lr: Positive = 4e-3
    """Learning rate of the backbone, high enough that free fine-tuning forgets the pre-training."""
    head_lr: Positive = 1e-2
    """Learning rate of the new head."""
    strengths: Strengths = (1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    """Penalty strengths of every anchored arm, for F of mean 1."""
    rates: Rates = (1e-5, 1e-4, 3e-4, 6e-4, 1e-3, 1.5e-3, 2e-3, 3e-3)
    """Learning rates of the arm without a penalty; as many as strengths, so that every arm has as many cells."""
    held_out: Count = 256
    """Bank images on which the SSL loss is measured; none of them is among the FIM's."""
    neighbours: Count = 20
    """Neighbours k of the k-NN classifier."""
    temperature: Positive = 0.07
    """Temperature of the neighbours' votes."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples of the seeds."""

    @model_validator(mode="after")
    def _equal_grids(self) -> Self:
        if len(self.rates) != len(self.strengths):
            raise ValueError(f"rates has {len(self.rates)} values, strengths {len(self.strengths)}: every arm needs as many cells")
        return self


def read_settings(path: Path | None) -> TransferStudy:
    """The settings of a YAML file, each key with its default where it is left out; the defaults without a file.

    Raises:
        ConfigError: the file is missing, is no mapping, or breaks a rule of `TransferStudy`; names the key.
    """
    if path is None:
        return TransferStudy()
    try:
        value = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}", "pass --settings FILE.") from error
    try:
        return TransferStudy.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "top level"
        raise ConfigError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
