"""What a network still has of its pre-training: its SSL loss, its k-NN accuracy, and how far its predictions went.

    ssl_loss        mean over held-out bank images of the DINO loss, with the stored head, teacher and centre
    knn, knn_worst  accuracy of weighted k-NN on the SSL domain's labelled dataset (splits balanced -> test): average, worst group
    drift           mean over held-out views of KL(p* || p), p* and p the predictions of the anchor and of the network

and, for a network at theta* + delta, what second-order theory says the drift is (Kunstner et al. 2019, section 2):

    full            1/2 delta^T G delta,  G = mean over views of J^T (diag p* - p* p*^T) J     no diagonal approximation
    diagonal        1/2 sum_i F_i delta_i^2                                                    the stored Fisher

Everything in evaluation mode, with the same images and the same views for every network.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from anchored.backbones.features import features, to_input
from anchored.backbones.heads import dino_settings
from anchored.data.store import open_store
from anchored.errors import ConfigError
from anchored.evaluate.metrics import average_accuracy, worst_group_accuracy
from anchored.fisher import load_fisher
from anchored.fisher.measurement import Measurement
from anchored.objectives.image_loss import Network
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.plan.naming import derive_seed
from anchored.transfer.neighbours import neighbour_votes
from anchored.transfer.settings import TransferStudy


class Retention:
    """Measures networks of one backbone against the pre-training of the FIM `name`.

    Args:
        plan: the compiled plan.
        name: identity of the FIM.
        paths: the folder layout.
        settings: how much is held out, and the k-NN classifier.
        device: where networks are.

    Attributes:
        anchor: the backbone at the anchor, in evaluation mode; not to be changed.
        backbone: its entry of the plan.
        fisher: the stored F, raw.

    Raises:
        ConfigError: the FIM took every image of the bank, or the backbone has no SSL head.
        InputError: a file is missing or belongs to something else.
    """

    def __init__(self, plan: Plan, name: str, paths: Paths, settings: TransferStudy, device: torch.device) -> None:
        measurement = Measurement(_with_soft_targets(plan, name), name, paths, device)
        self.anchor = measurement.model
        self.backbone: Mapping[str, Any] = lookup(plan, "backbones", measurement.entry["backbone"])
        if not self.backbone["pretraining"]:
            raise ConfigError(
                f"backbone '{self.backbone['family']}' is imported: no labelled dataset of its own domain is known for k-NN.",
                "use a backbone that is pre-trained here.",
            )
        self._temperature = dino_settings(self.backbone)["student_temperature"]
        self.fisher = load_fisher(paths.fim(name) / "fim.safetensors", self.anchor)
        self._loss = measurement.loss
        bank = open_store(paths.data(measurement.entry["bank"]))
        self._batches = list(_on_other_images(measurement, len(bank.packed), settings.held_out).batches())
        self.size = int(bank.packed.shape[1])
        self._settings, self._device = settings, device
        store = open_store(paths.data(self.backbone["pretraining"]["probe"]))
        rows = {split: store.rows(split, 0) for split in ("balanced", "test")}
        self._inputs = {split: to_input(store.layer("image")[rows[split]], self.backbone, device) for split in rows}
        self._labels = {split: torch.from_numpy(store.column("y", rows[split])) for split in rows}
        self._groups = store.column("group", rows["test"])
        with torch.inference_mode():
            self._predictions = [self._log_probabilities(self.anchor, batch) for batch in self._batches]

    def measure(self, model: nn.Module) -> dict[str, float]:
        """The measures of the module docstring, for a network in evaluation mode that shares the anchor's architecture."""
        average, worst = self._neighbours(model)
        drift, full = self._drift(model)
        return {
            "ssl_loss": self._ssl_loss(model),
            "knn": average,
            "knn_worst": worst,
            "drift": drift,
            "full": full,
            "diagonal": self._diagonal(model),
        }

    def _ssl_loss(self, model: nn.Module) -> float:
        with torch.inference_mode():
            losses = torch.cat([self._loss(model, batch) for batch in self._batches])
        return losses.double().mean().item()

    def _neighbours(self, model: nn.Module) -> tuple[float, float]:
        found = {split: torch.from_numpy(features(model, inputs)) for split, inputs in self._inputs.items()}
        scores = neighbour_votes(
            found["balanced"],
            self._labels["balanced"],
            found["test"],
            classes=int(self._labels["balanced"].max()) + 1,
            neighbours=self._settings.neighbours,
            temperature=self._settings.temperature,
        )
        correct: NDArray[np.bool_] = (scores.argmax(1) == self._labels["test"]).numpy()
        sizes = np.bincount(self._groups)
        hits = np.bincount(self._groups[correct], minlength=len(sizes))
        return float(average_accuracy(hits, sizes)), float(worst_group_accuracy(hits, sizes)[0])

    def _drift(self, model: nn.Module) -> tuple[float, float]:
        """The KL divergence, and its second-order prediction."""
        origin = {name: parameter.detach() for name, parameter in self.anchor.named_parameters()}
        delta = {name: parameter.detach() - origin[name] for name, parameter in model.named_parameters()}
        measured, predicted = [], []
        with torch.no_grad():
            for batch, before in zip(self._batches, self._predictions, strict=True):
                chances = before.exp()
                measured.append((chances * (before - self._log_probabilities(model, batch))).sum(-1))

                def logits(parameters: dict[str, Tensor], batch: Mapping[str, Tensor] = batch) -> Tensor:
                    return self._logits(lambda views: functional_call(self.anchor, parameters, (views,)), batch)

                with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward-mode derivative
                    change: Tensor = jvp(logits, (origin,), (delta,))[1]
                predicted.append((chances * change**2).sum(-1) - (chances * change).sum(-1) ** 2)
        return torch.cat(measured).double().mean().item(), torch.cat(predicted).double().mean().item() / 2

    def _diagonal(self, model: nn.Module) -> float:
        origin = dict(self.anchor.named_parameters())
        with torch.no_grad():
            return sum(
                (self.fisher[name].to(self._device) * (parameter - origin[name]) ** 2).sum(dtype=torch.float64).item()
                for name, parameter in model.named_parameters()
                if name in self.fisher
            ) / 2

    def _log_probabilities(self, network: Network, batch: Mapping[str, Tensor]) -> Tensor:
        return self._logits(network, batch).log_softmax(-1)

    def _logits(self, network: Network, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits (B * V, K) of the student's head over its temperature."""
        return self._loss.student_logits(network, batch).flatten(0, 1) / self._temperature


def _with_soft_targets(plan: Plan, name: str) -> Plan:
    """The plan with the estimator `teacher`: labels drawn from the network's own prediction would follow it wherever it goes."""
    entry = {**lookup(plan, "fims", name), "estimator": "teacher"}
    return {**plan, "fims": {**plan["fims"], name: entry}}


def _on_other_images(measurement: Measurement, bank: int, count: int) -> Measurement:
    """The same measurement on `count` images of the bank (all where there are fewer) that are not among its own."""
    others = np.setdiff1d(np.arange(bank), measurement.rows)
    if not len(others):
        raise ConfigError(
            f"the FIM was measured on all {bank} images of the bank '{measurement.entry['bank']}': none is held out.",
            "lower fims.images, or enlarge the bank.",
        )
    other = copy.copy(measurement)
    other.rows = np.random.default_rng(derive_seed(measurement.entry["seed"], "held out")).permutation(others)[:count]
    return other

