"""The cells of a study: each fine-tunes the anchor on the target and is measured on both tasks.

    arm                           cells of a seed
    free, frozen                  1 each: no penalty at the study's learning rate; a backbone that does not move
    ewc..., l2sp, ewc-shuffled    1 for each strength, at the study's learning rate
    low-lr                        1 for each rate, without a penalty

A cell is trained by the loop of `anchored finetune`. Its line is kept in work/ until the study is whole, so a killed study
continues with the next cell.
"""

import copy
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from anchored.backbones.build import seeded
from anchored.data.store import Store
from anchored.device import place
from anchored.files import json_text, value_digest, write_text
from anchored.finetune.loop import Material, train_cell
from anchored.finetune.state import CellState
from anchored.plan.naming import configuration_label, derive_seed
from anchored.progress import progress
from anchored.transfer.retention import Retention
from anchored.transfer.settings import ANCHORS, FREE, FROZEN, LOW_RATE, TransferStudy

PRETRAINED, RANDOM, STEP = "pre-trained", "random", "random-step"
"""Lines of the frame that are no cells: the anchor itself, a network with random weights, and the anchor after a small random
step in all parameters alike, along which the entries off the Fisher's diagonal cancel."""

_RANDOM_STEPS = 4
_STEP_LENGTH = 0.01  # of the root mean square of the parameters

SCHEMA: dict[str, Any] = {
    "fim": pl.String, "arm": pl.String, "replicate": pl.Int16, "strength": pl.Float64, "lr": pl.Float64,
    **dict.fromkeys(("accuracy", "train_loss", "displacement"), pl.Float64),
    **dict.fromkeys(("ssl_loss", "knn", "knn_worst", "drift", "full", "diagonal"), pl.Float64),
}  # fmt: skip


def run_cells(
    fim: str, seed: int, retention: Retention, target: Store, settings: TransferStudy, *, work: Path, key: str,
    device: torch.device,
) -> pl.DataFrame:  # fmt: skip
    """One line a cell, after those of the networks that are no cells.

    Args:
        fim: the FIM's identity.
        seed: the plan's; every cell's seed derives from it.
        retention: measures networks, and holds the anchor and its Fisher.
        target: the unrelated task, with a draw for each seed.
        settings: the grid and the fine-tuning.
        work: folder for the lines of finished cells; removed at the end.
        key: digest of everything else that determines a line.
        device: where networks are.

    Raises:
        NumericalError: a cell diverged.
    """
    cells = list(grid(fim, seed, settings))
    random = place(seeded(retention.backbone["architecture"], derive_seed(seed, "transfer", fim, "random")), device).eval()
    references = [(PRETRAINED, retention.anchor), (RANDOM, random)]
    for number in range(_RANDOM_STEPS):
        references.append((STEP, stepped_randomly(retention.anchor, derive_seed(seed, "transfer", fim, "step", number))))
    lines: list[dict[str, Any]] = [{"fim": fim, "arm": arm, **retention.measure(model)} for arm, model in references]
    with progress(f"fim-transfer {fim}", len(cells)) as advance:
        for cell in cells:
            path = work / f"{cell['name']}.json"
            cell_key = value_digest({"cell": cell, "key": key})
            line = _stored(path, cell_key)
            if line is None:
                line = _run(cell, retention, target, work / "state.pt", device)
                write_text(path, json_text({"key": cell_key, "line": line}))
            lines.append({"fim": fim, **line})
            advance(note=f"{cell['name']} accuracy {line['accuracy']:.3f}, SSL loss {line['ssl_loss']:.3f}")
    shutil.rmtree(work, ignore_errors=True)
    return pl.DataFrame(lines, schema=SCHEMA)


def grid(fim: str, seed: int, settings: TransferStudy) -> Iterator[dict[str, Any]]:
    """All cells of a study, as the fine-tuning loop reads them."""
    points: list[tuple[str, str, dict[str, float], Mapping[str, Any] | None]] = [
        (FREE, "erm", {"lr": settings.lr}, None),
        (FROZEN, "erm", {"lr": 0.0}, None),
        *((LOW_RATE, "erm", {"lr": rate}, None) for rate in settings.rates),
    ]
    for name, anchor in ANCHORS.items():
        for strength in settings.strengths:
            points.append((name, anchor["arm"], {"lr": settings.lr, "strength": strength}, anchor["conditioning"]))
    training = {
        "epochs": settings.epochs, "batch": settings.batch, "optimizer": "adamw", "weight_decay": 0.0,
        "head_lr": settings.head_lr, "schedule": "cosine", "batch_norm": "frozen", "precision": "fp32", "candidates": "last",
    }  # fmt: skip
    for replicate in range(settings.seeds):
        for name, arm, hyper, conditioning in points:
            label = configuration_label(hyper)
            yield {
                "name": f"{name}-{label}-r{replicate}",
                "study_arm": name,
                "arm": arm,
                "configuration": label,
                "hyper": hyper,
                "conditioning": conditioning,
                "replicate": replicate,
                "draw": replicate,
                "seed": derive_seed(seed, "transfer", fim, replicate),
                "training": training,
            }


def stepped_randomly(anchor: nn.Module, seed: int) -> nn.Module:
    """A copy of `anchor` after an isotropic step of a hundredth of its parameters' length."""
    model = copy.deepcopy(anchor)
    parameters = list(model.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    scale = math.sqrt(sum(float((parameter.detach() ** 2).sum()) for parameter in parameters) / count) * _STEP_LENGTH
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=scale)
    return model


def _run(cell: Mapping[str, Any], retention: Retention, target: Store, path: Path, device: torch.device) -> dict[str, Any]:
    """The line of a cell."""
    fisher = retention.fisher if cell["arm"].startswith("ewc") else None
    material = Material(target, retention.backbone, lambda: copy.deepcopy(retention.anchor), fisher, device)
    state = train_cell(cell["name"], cell, material, CellState(""), path, lambda _: None)
    path.unlink()
    test = target.rows("test", cell["draw"])
    predicted = state.logits[f"{cell['training']['epochs']}/test"].argmax(1).numpy()
    return {
        "arm": cell["study_arm"],
        "replicate": cell["replicate"],
        "strength": cell["hyper"].get("strength"),
        "lr": cell["hyper"]["lr"],
        "accuracy": float((predicted == target.column("y", test)).mean()),
        "train_loss": state.history[-1]["train_loss"],
        "displacement": state.history[-1]["displacement"],
        **retention.measure(_backbone(state, retention.anchor)),
    }


def _backbone(state: CellState, anchor: nn.Module) -> nn.Module:
    """The fine-tuned backbone, in evaluation mode."""
    model = copy.deepcopy(anchor)
    prefix = "backbone."
    model.load_state_dict({name.removeprefix(prefix): value for name, value in state.network.items() if name.startswith(prefix)})
    return model.eval()


def _stored(path: Path, key: str) -> dict[str, Any] | None:
    """The line of a cell that an interrupted study finished, if it is of this key."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found["line"] if isinstance(found, dict) and found.get("key") == key else None
