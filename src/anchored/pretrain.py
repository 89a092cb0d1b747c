"""The step `pretrain`: a backbone trained by self-supervision on an unlabelled bank, or imported.

Loss of a step, mean over the batch (objectives/):

    L = w_dino * DINO(student views, teacher's global views) + w(t) * InfoNCE(two global views' bottlenecks)

w(t) runs linearly over the training. The teacher is the exponential average of the student, its momentum rises to 1 along
a cosine; it runs in train mode with batch statistics of its own (Caron et al. 2021 do the same; in evaluation mode its
statistics lag and the targets collapse).
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anchored.backbones.build import seeded
from anchored.backbones.checkpoint import import_weights, save_checkpoint
from anchored.backbones.features import feature_width, features, normalise, to_input
from anchored.backbones.heads import DinoHead, dino_head
from anchored.data.recipes import view_maker
from anchored.data.store import Store, open_store
from anchored.device import choose_device, describe, limit_threads, place
from anchored.errors import NumericalError
from anchored.objectives.dino import dino_losses, update_centre
from anchored.objectives.infonce import infonce_losses
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.plan.naming import derive_seed
from anchored.probe import probe
from anchored.progress import progress
from anchored.record import Running, planned_step


def pretrain(plan: Plan, name: str, paths: Paths, *, force: bool = False) -> None:
    """Makes the backbone `name` of the plan: `results/backbones/<name>/model.safetensors`."""
    entry = lookup(plan, "backbones", name)
    with planned_step(plan, "backbones", name, paths).run(force=force) as running:
        if not running:
            return
        limit_threads(entry["threads"])
        target = paths.backbone(name) / "model.safetensors"
        if entry["weights"]:
            save_checkpoint(target, {"student": import_weights(entry, paths.root)}, {})
            return
        device = choose_device()
        running.device = describe(device)
        networks = _train(name, entry, open_store(paths.data(entry["bank"])), device, running)
        running.measure(probe=_probes(entry, networks, open_store(paths.data(entry["probe"])), device))
        save_checkpoint(
            target,
            {
                "student": networks.student,
                "teacher": networks.teacher,
                "student_head": networks.student_head,
                "teacher_head": networks.teacher_head,
            },
            {"centre": networks.centre},
        )


@dataclass
class Networks:
    """Student and teacher with their heads, and the centre (K,) of the teacher's logits."""

    student: nn.Module
    student_head: DinoHead
    teacher: nn.Module
    teacher_head: DinoHead
    centre: Tensor

    @classmethod
    def create(cls, entry: Mapping[str, Any], device: torch.device) -> "Networks":
        """Student with random weights of the entry's seed, teacher equal to it."""
        student = seeded(entry["architecture"], derive_seed(entry["seed"], "weights"))
        dino = entry["pretraining"]["dino"]
        head = dino_head(feature_width(student), dino, derive_seed(entry["seed"], "head"))
        student, head = place(student, device), head.to(device)
        teacher, teacher_head = copy.deepcopy(student), copy.deepcopy(head)
        for parameter in (*teacher.parameters(), *teacher_head.parameters()):
            parameter.requires_grad_(False)
        return cls(student, head, teacher, teacher_head, torch.zeros(dino["prototypes"], device=device))

    def parameters(self) -> list[nn.Parameter]:
        """All that the optimiser trains."""
        return [*self.student.parameters(), *self.student_head.parameters()]

    def follow(self, momentum: float) -> None:
        """Moves the teacher's parameters towards the student's: teacher = momentum * teacher + (1 - momentum) * student."""
        with torch.no_grad():
            targets: list[Tensor] = [*self.teacher.parameters(), *self.teacher_head.parameters()]
            torch._foreach_lerp_(targets, list[Tensor](self.parameters()), 1 - momentum)


def _train(name: str, entry: Mapping[str, Any], bank: Store, device: torch.device, running: Running) -> Networks:
    settings = entry["pretraining"]
    networks = Networks.create(entry, device)
    maker = view_maker(bank, settings["views"], device)
    optimizer = _optimizer(networks, settings)
    images = len(bank.packed)
    steps = max(images // settings["batch"], 1)
    total = steps * settings["epochs"]
    curve = []
    with progress(f"pretrain {name}", total) as advance:
        for epoch in range(settings["epochs"]):
            rng = np.random.default_rng([derive_seed(entry["seed"], "views"), epoch])
            order = rng.permutation(images)
            losses = []
            for step in range(steps):
                done = epoch * steps + step
                for group in optimizer.param_groups:
                    group["lr"] = settings["lr"] * _rate(done, total, settings["warmup"])
                rows = np.sort(order[step * settings["batch"] : (step + 1) * settings["batch"]])
                large, small = maker(rows, maker.draw(rng, rows))
                views = [normalise(part, entry) for part in (large, small) if part is not None]
                losses.append(_step(networks, views, optimizer, settings, done / max(total - 1, 1)))
                advance(note=f"loss {losses[-1]:.3f}")
            curve.append(float(np.mean(losses)))
            if not math.isfinite(curve[-1]):
                raise NumericalError(
                    f"pretrain {name}: the loss is not finite in epoch {epoch + 1}.",
                    f"lower backbones.{entry['family']}.pretraining.lr, or check the bank.",
                )
    running.measure(loss=curve, steps=total, images=images)
    return networks


def _step(
    networks: Networks, views: list[Tensor], optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], time: float
) -> float:
    """One optimiser step at `time` in [0, 1] of the training; returns the loss."""
    dino, infonce = settings["dino"], settings["infonce"]
    bottlenecks, logits = zip(*(_project(networks.student, networks.student_head, part) for part in views), strict=True)
    with torch.no_grad():
        _, targets = _project(networks.teacher, networks.teacher_head, views[0])
    losses = dino["weight"] * dino_losses(
        torch.cat(logits, dim=1),
        targets,
        networks.centre,
        student_temperature=dino["student_temperature"],
        teacher_temperature=dino["teacher_temperature"],
    )
    weight = infonce["weight"][0] + time * (infonce["weight"][1] - infonce["weight"][0])
    if weight:
        pair = bottlenecks[0][:, 0], bottlenecks[0][:, 1]
        losses = losses + weight * infonce_losses(*pair, temperature=infonce["temperature"])
    loss = losses.mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(networks.parameters(), settings["clip"])
    optimizer.step()
    networks.follow(1 - (1 - dino["teacher_momentum"]) * (1 + math.cos(math.pi * time)) / 2)
    networks.centre = update_centre(networks.centre, targets, dino["centre_momentum"])
    return loss.item()


def _project(network: nn.Module, head: DinoHead, views: Tensor) -> tuple[Tensor, Tensor]:
    """Bottlenecks (B, V, d) and logits (B, V, K) of views (B, V, 3, H, W)."""
    flat = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    projection = head(network(flat))
    shape = views.shape[:2]
    return projection.bottleneck.unflatten(0, shape), projection.logits.unflatten(0, shape)


def _optimizer(networks: Networks, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """AdamW; vectors (norms, biases) are not decayed."""
    parameters = networks.parameters()
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings["lr"], fused=True)


def _rate(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate: a linear rise over `warmup`, then a cosine to 0."""
    rising = warmup * total
    if step < rising:
        return (step + 1) / math.ceil(rising)
    return (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1))) / 2


def _probes(entry: Mapping[str, Any], networks: Networks, data: Store, device: torch.device) -> dict[str, Any]:
    """Probes of random weights, student and teacher, measured on `val` of draw 0.

    Fitted on the split `balanced`, which digitscenes has for it, or on `train`.
    """
    fit_split = "balanced" if "balanced" in data.manifest["groups"] else "train"
    random = seeded(entry["architecture"], derive_seed(entry["seed"], "weights")).to(device)
    rows = {split: data.rows(split, 0) for split in (fit_split, "val")}
    inputs = {split: to_input(data.layer("image")[chosen], entry, device) for split, chosen in rows.items()}
    labels = {split: data.column("y", chosen) for split, chosen in rows.items()}
    groups = data.column("group", rows["val"])
    found = {}
    for name, network in {"random": random, "student": networks.student, "teacher": networks.teacher}.items():
        fitted, measured = (features(network, inputs[split]) for split in (fit_split, "val"))
        found[name] = probe(fitted, labels[fit_split], measured, labels["val"], groups)
    return found
