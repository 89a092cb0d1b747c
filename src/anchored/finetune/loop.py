"""Training one cell: the epochs, the measures of each, the predictions, and resuming after a kill."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from anchored.backbones.build import freeze_batch_norm
from anchored.backbones.features import feature_width, normalise, to_input
from anchored.data.augment import Augmentation
from anchored.data.store import Store
from anchored.device import place
from anchored.errors import NumericalError
from anchored.evaluate.metrics import average_accuracy, worst_group_accuracy
from anchored.finetune.anchor import Anchor, gradient_norm
from anchored.finetune.fixed_stages import FixedStages
from anchored.finetune.predictions import evaluation_rows
from anchored.finetune.state import CellState
from anchored.finetune.strategies import freeze_stages, make_anchor
from anchored.plan.naming import derive_seed

_SGD_MOMENTUM = 0.9
# Images of a forward pass in evaluation; on a CPU larger ones leave the cache.
_EVALUATION_BATCH = 128


class Classifier(nn.Module):
    """A backbone and a new linear head. The head starts at zero, so the first step does not shake the backbone.

    Args:
        backbone: maps images to features (B, D); `num_features` tells D.
        classes: number of outputs.
        tail: what makes features of the inputs instead of the whole backbone, whose parameters it uses.
    """

    def __init__(self, backbone: nn.Module, classes: int, tail: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self._tail = tail
        self.head = nn.Linear(feature_width(backbone), classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of normalised images (B, 3, H, W), or of what the tail takes; the head computes in fp32."""
        features = (self._tail or self.backbone)(inputs)
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float())


@dataclass(frozen=True)
class Material:
    """What all cells of a job read."""

    store: Store
    backbone: Mapping[str, Any]
    make_backbone: Callable[[], nn.Module]
    fisher: Mapping[str, Tensor] | None
    device: torch.device
    fixed: FixedStages | None = None


def train_cell(
    name: str, cell: Mapping[str, Any], material: Material, state: CellState, path: Path, on_epoch: Callable[[str], None]
) -> CellState:
    """Trains a cell from `state` to its last epoch, saving the state at `path` after every epoch.

    Args:
        name: the cell's identity.
        cell: its entry in the plan.
        material: what it reads.
        state: fresh, or loaded from `path`.
        path: where to save.
        on_epoch: called after every epoch with a note for the progress bar.

    Raises:
        NumericalError: the loss or a weight is not finite.
    """
    trainer = _Trainer(name, cell, material, state)
    training = cell["training"]
    for epoch in range(state.epoch + 1, training["epochs"] + 1):
        measures = trainer.train_epoch(epoch)
        last = epoch == training["epochs"]
        for split, logits in trainer.evaluate(last or training["candidates"] == "every").items():
            if split == "val":
                measures |= trainer.validation(logits)
            if last or training["candidates"] == "every":
                state.logits[f"{epoch}/{split}"] = logits
        state.history.append({"epoch": epoch, **measures})
        state.epoch, state.finished = epoch, last
        state.network = {key: value.cpu() for key, value in trainer.model.state_dict().items()}
        state.optimizer = {} if last else trainer.optimizer.state_dict()
        state.save(path)
        on_epoch(f"{cell['arm']} {cell['configuration']} val worst group {measures['val_worst_group']:.3f}")
    return state


class _Trainer:
    """Model, optimiser and data of one cell."""

    def __init__(self, name: str, cell: Mapping[str, Any], material: Material, state: CellState) -> None:
        self.name, self._cell, self._training, self._material = name, cell, cell["training"], material
        store = material.store
        self._rows = store.rows("train", cell["draw"])
        self._labels = torch.from_numpy(store.column("y", self._rows)).to(material.device)
        backbone = place(material.make_backbone(), material.device)
        frozen = cell["hyper"]["stages"] if cell["arm"] == "freeze" else cell["training"].get("frozen_stages")
        if frozen is not None:
            freeze_stages(backbone, frozen, cell=name)
        tail = material.fixed.tail(backbone) if material.fixed else None
        self.model = place(Classifier(backbone, store.classes, tail), material.device)
        self.anchor: Anchor = make_anchor(self.model.backbone, cell, material.fisher)
        self.optimizer = self._make_optimizer()
        self._evaluation = evaluation_rows(store, cell)
        if material.fixed:
            material.fixed.add(np.concatenate([self._rows, *self._evaluation.values()]))
        self._augment = Augmentation(steps) if (steps := cell["training"].get("augmentation")) else None
        if state.epoch:
            self.model.load_state_dict(state.network)
            self.optimizer.load_state_dict(state.optimizer)

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training split; returns its measures."""
        self._set_mode()
        size, count = self._training["batch"], len(self._rows)
        order = np.random.default_rng([derive_seed(self._cell["seed"], "order"), epoch]).permutation(count)
        draws = np.random.default_rng([derive_seed(self._cell["seed"], "augmentation"), epoch])
        starts = range(0, count, size)
        total = 0.0
        ratio = 0.0
        for step, start in enumerate(starts):
            chosen = order[start : start + size]
            self._set_rates((epoch - 1) * len(starts) + step, self._training["epochs"] * len(starts))
            loss = self._loss(self._training_inputs(self._rows[chosen], draws), self._labels[torch.from_numpy(chosen)])
            self.optimizer.zero_grad()
            loss.backward()
            if step == len(starts) - 1:
                ratio = self._gradient_ratio()
            self.anchor.add_gradient()
            self.optimizer.step()
            total += loss.item() * len(chosen)
        measures = {
            "train_loss": total / count,
            "penalty": self.anchor.penalty(),
            "gradient_ratio": ratio,
            "displacement": self.anchor.displacement(),
        }
        self._require_finite(epoch, measures)
        return measures

    def evaluate(self, with_test: bool) -> dict[str, Tensor]:
        """Logits (N, classes) of val, and of test where asked, on the CPU."""
        self.model.eval()
        found = {}
        with torch.inference_mode():
            for split, rows in self._evaluation.items():
                if split == "val" or with_test:
                    parts = [self._forward(self._inputs(part)) for part in np.array_split(rows, -(-len(rows) // _EVALUATION_BATCH))]
                    found[split] = torch.cat(parts).float().cpu().clone()
        return found

    def validation(self, logits: Tensor) -> dict[str, float]:
        """Accuracies on val: average, worst group, and every group."""
        rows, store = self._evaluation["val"], self._material.store
        groups = store.column("group", rows)
        correct = logits.argmax(1).numpy() == store.column("y", rows)
        sizes = np.bincount(groups)
        hits = np.bincount(groups[correct], minlength=len(sizes))
        worst, _ = worst_group_accuracy(hits, sizes)
        each = {f"val_group_{g}": float(hits[g] / sizes[g]) for g in np.flatnonzero(sizes)}
        return {"val_average": float(average_accuracy(hits, sizes)), "val_worst_group": float(worst), **each}

    def _inputs(self, rows: NDArray[np.int64]) -> Tensor:
        if self._material.fixed:
            return self._material.fixed(rows)
        return to_input(self._material.store.layer("image")[rows], self._material.backbone, self._material.device)

    def _training_inputs(self, rows: NDArray[np.int64], draws: np.random.Generator) -> Tensor:
        if self._augment is None:
            return self._inputs(rows)
        pixels = self._augment(self._material.store.layer("image")[rows], draws, self._material.device)
        return normalise(pixels.float().div_(255), self._material.backbone).contiguous(memory_format=torch.channels_last)

    def _forward(self, inputs: Tensor) -> Tensor:
        half = self._training["precision"] == "bf16" and inputs.is_cuda
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=half):
            return self.model(inputs)

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self._forward(inputs), labels)

    def _set_mode(self) -> None:
        self.model.train()
        if self._training["batch_norm"] == "frozen":
            freeze_batch_norm(self.model)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        groups = [
            {"params": [p for p in self.model.backbone.parameters() if p.requires_grad], "lr": self._cell["hyper"]["lr"]},
            {"params": list(self.model.head.parameters()), "lr": self._training["head_lr"]},
        ]
        for group in groups:
            group["peak"] = group["lr"]
        decay = self._training["weight_decay"]
        if self._training["optimizer"] == "sgd":
            return torch.optim.SGD(groups, momentum=_SGD_MOMENTUM, weight_decay=decay, fused=True)
        return torch.optim.AdamW(groups, weight_decay=decay, fused=True)

    def _set_rates(self, step: int, total: int) -> None:
        factor = 1.0 if self._training["schedule"] == "constant" else (1 + math.cos(math.pi * step / total)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    def _gradient_ratio(self) -> float:
        """Norm of the penalty's gradient over that of the task's, on the backbone, at the last step of an epoch."""
        if self.anchor.strength == 0:
            return 0.0
        task = gradient_norm([p for p in self.model.backbone.parameters() if p.requires_grad])
        return self.anchor.gradient_norm() / task if task else math.inf

    def _require_finite(self, epoch: int, measures: Mapping[str, float]) -> None:
        finite = all(math.isfinite(measures[key]) for key in ("train_loss", "penalty", "displacement"))
        if not finite:
            raise NumericalError(
                f"cell {self.name}: loss or weights are not finite after epoch {epoch} ({self._cell['hyper']}).",
                "lower the learning rate or the penalty strength of this grid point, or clip its Fisher (conditioning).",
            )
