"""The arm `linear-probe`: logistic regression on the frozen backbone's standardised features."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchored.backbones.features import stored_features
from anchored.device import place
from anchored.finetune.loop import Material
from anchored.finetune.predictions import evaluation_rows
from anchored.finetune.state import CellState
from anchored.probe import fit_logistic

Features = dict[str, NDArray[np.float32]]


def probe_cell(cell: Mapping[str, Any], material: Material, key: str, cache: dict[int, Features]) -> CellState:
    """Fits and evaluates a probe.

    Args:
        cell: the cell's entry in the plan.
        material: what it reads.
        key: digest of everything that determines the result.
        cache: features by draw; filled here and shared by the cells of a job.
    """
    rows = {"train": material.store.rows("train", cell["draw"]), **evaluation_rows(material.store, cell)}
    if cell["draw"] not in cache:
        backbone = place(material.make_backbone(), material.device)
        cache[cell["draw"]] = {
            split: stored_features(backbone, material.store.layer("image"), chosen, material.backbone, material.device)
            for split, chosen in rows.items()
        }
    found = cache[cell["draw"]]
    fitted = fit_logistic(found["train"], material.store.column("y", rows["train"]), cell["hyper"]["c"])
    classes = material.store.classes
    logits = {f"0/{split}": _logits(fitted.decision_function(found[split]), fitted.classes_, classes) for split in ("val", "test")}
    return CellState(key, logits=logits, finished=True)


def _logits(decision: NDArray, known: NDArray[np.int64], classes: int) -> Tensor:
    """Logits (N, classes) of a decision on the classes `known`; for two of them it is one column, the log-odds of the second.

    A class that no training image has is never predicted.
    """
    logits = np.full((len(decision), classes), -np.inf, np.float32)
    logits[:, known] = np.stack([np.zeros_like(decision), decision], axis=1) if decision.ndim == 1 else decision
    return torch.from_numpy(logits)
