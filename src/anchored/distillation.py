"""Self-distillation on a bank: the training loop of backbones with their heads, and of heads on a frozen backbone.

Loss of a step, mean over the batch (objectives/):

    L = w_dino * DINO(student views, teacher's global views) + w(t) * InfoNCE(two global views' bottlenecks)

w(t) runs linearly over the training. The teacher is the exponential average of the student, its momentum rises to 1 along
a cosine; it runs in train mode with batch statistics of its own (Caron et al. 2021 do the same; in evaluation mode its
statistics lag and the targets collapse). A frozen backbone is student and teacher at once, in evaluation mode; then only the
heads learn, and L has no InfoNCE.
"""

import copy
import io
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anchored.backbones.build import seeded
from anchored.backbones.features import feature_width, normalise
from anchored.backbones.heads import DinoHead, Projection, dino_head
from anchored.data.draws import join
from anchored.data.recipes import view_maker
from anchored.data.store import Store
from anchored.device import arithmetic, place
from anchored.errors import ConfigError, NumericalError
from anchored.files import write_bytes
from anchored.objectives.dino import dino_losses, update_centre
from anchored.objectives.infonce import infonce_losses
from anchored.plan.naming import derive_seed
from anchored.progress import progress

log = logging.getLogger("anchored")


@dataclass
class Networks:
    """Student and teacher with their heads, and the centre (K,) of the teacher's logits.

    Args:
        frozen: student and teacher are one backbone that does not learn, in evaluation mode.
    """

    student: nn.Module
    student_head: DinoHead
    teacher: nn.Module
    teacher_head: DinoHead
    centre: Tensor
    frozen: bool = False

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

    @classmethod
    def on_frozen(cls, model: nn.Module, entry: Mapping[str, Any], device: torch.device) -> "Networks":
        """Fresh heads of the entry's seed on a backbone that stays as it is."""
        dino = entry["head"]["dino"]
        head = dino_head(feature_width(model), dino, derive_seed(entry["seed"], "head")).to(device)
        teacher_head = copy.deepcopy(head).requires_grad_(False)
        model = place(model, device).eval().requires_grad_(False)
        return cls(model, head, model, teacher_head, torch.zeros(dino["prototypes"], device=device), frozen=True)

    def parameters(self) -> list[nn.Parameter]:
        """All that the optimiser trains."""
        return [*(() if self.frozen else self.student.parameters()), *self.student_head.parameters()]

    def learning(self) -> dict[str, nn.Module]:
        """The modules that change in training."""
        heads: dict[str, nn.Module] = {"student_head": self.student_head, "teacher_head": self.teacher_head}
        return heads if self.frozen else {"student": self.student, "teacher": self.teacher, **heads}

    def follow(self, momentum: float) -> None:
        """Moves the teacher's parameters towards the student's: teacher = momentum * teacher + (1 - momentum) * student."""
        with torch.no_grad():
            backbone = () if self.frozen else self.teacher.parameters()
            targets: list[Tensor] = [*backbone, *self.teacher_head.parameters()]
            torch._foreach_lerp_(targets, list[Tensor](self.parameters()), 1 - momentum)


def train(
    networks: Networks,
    settings: Mapping[str, Any],
    entry: Mapping[str, Any],
    bank: Store,
    *,
    name: str,
    state: Path,
    key: str,
) -> dict[str, Any]:
    """Trains `networks` in place, saving after every epoch what the next one needs; a killed training continues from there.

    Args:
        networks: what is trained, on its device.
        settings: `pretraining` or `head` of the entry.
        entry: the backbone's entry in the plan.
        bank: the unlabelled images.
        name: the backbone's identity, for messages.
        state: where to save.
        key: digest of everything that determines the result; a state of another one is ignored.

    Returns:
        for the record: `loss` (mean of each epoch), `steps`, `images`.

    Raises:
        NumericalError: the loss is not finite.
    """
    device = networks.centre.device
    maker = view_maker(bank, settings["views"], device)
    optimizer = _optimizer(networks, settings)
    images = len(bank.packed)
    steps = max(images // settings["batch"], 1)
    total = steps * settings["epochs"]
    curve = _resume(networks, optimizer, state, key)
    part = "head" if networks.frozen else "pretraining"
    with progress(f"pretrain {name}", total) as advance:
        advance(len(curve) * steps)
        for epoch in range(len(curve), settings["epochs"]):
            rng = np.random.default_rng([derive_seed(entry["seed"], "views"), epoch])
            order = rng.permutation(images)
            losses = []
            for step in range(steps):
                done = epoch * steps + step
                for group in optimizer.param_groups:
                    group["lr"] = settings["lr"] * _rate(done, total, settings["warmup"])
                rows = np.sort(order[step * settings["batch"] : (step + 1) * settings["batch"]])
                large, small = maker(rows, maker.draw(rng, rows))
                views = [normalise(size, entry) for size in (large, small) if size is not None]
                losses.append(_step(networks, views, optimizer, settings, done / max(total - 1, 1)))
                advance(note=f"loss {losses[-1]:.3f}")
            curve.append(float(np.mean(losses)))
            if not math.isfinite(curve[-1]):
                raise NumericalError(
                    f"pretrain {name}: the loss is not finite in epoch {epoch + 1}.",
                    f"lower backbones.{entry['family']}.{part}.lr, or check the bank.",
                )
            _save(networks, optimizer, curve, state, key)
    return {"loss": curve, "steps": total, "images": images}


def _save(networks: Networks, optimizer: torch.optim.Optimizer, curve: list[float], path: Path, key: str) -> None:
    saved = {name: module.state_dict() for name, module in networks.learning().items()}
    buffer = io.BytesIO()
    torch.save({"key": key, "curve": curve, "centre": networks.centre, "optimizer": optimizer.state_dict(), **saved}, buffer)
    write_bytes(path, buffer.getvalue())


def _resume(networks: Networks, optimizer: torch.optim.Optimizer, path: Path, key: str) -> list[float]:
    """Takes up a state of this key; returns the losses of the epochs that are done. Orders and views derive from (seed, epoch)."""
    try:
        saved = torch.load(path, map_location=networks.centre.device, weights_only=True)
    except FileNotFoundError:
        return []
    except Exception as error:  # an unreadable state only costs time
        log.warning("%s cannot be read (%s); the training starts from its beginning", path, error)
        return []
    if saved["key"] != key:
        log.info("%s belongs to another plan, input or code; the training starts from its beginning", path)
        return []
    for name, module in networks.learning().items():
        module.load_state_dict(saved[name])
    networks.centre = saved["centre"]
    optimizer.load_state_dict(saved["optimizer"])
    return saved["curve"]


@torch.no_grad()
def estimate_centre(teacher: nn.Module, head: DinoHead, entry: Mapping[str, Any], bank: Store, device: torch.device) -> Tensor:
    """The centre (K,) of a teacher whose checkpoint has none: its mean logits over the large crops of `head.images` images.

    In evaluation mode; in training the centre was the moving average of the same mean. Each image has its own generator, so the
    result depends on the entry's seed, not on the batches.

    Raises:
        ConfigError: the bank has fewer images.
    """
    settings, size = entry["head"], len(bank.packed)
    if settings["images"] > size:
        key = f"backbones.{entry['family']}.head.images"
        raise ConfigError(f"{key} is {settings['images']}, the bank '{entry['bank']}' has {size}.", f"lower {key}.")
    seed = derive_seed(entry["seed"], "centre")
    rows = np.random.default_rng([seed]).permutation(size)[: settings["images"]]
    maker = view_maker(bank, {**settings["views"], "local_crops": 0}, device)
    teacher, head = place(teacher, device).eval(), head.to(device).eval()
    total = torch.zeros(settings["dino"]["prototypes"], dtype=torch.float64, device=device)
    with arithmetic("fp32", device), progress(f"centre of {entry['family']}", len(rows)) as advance:
        for start in range(0, len(rows), settings["batch"]):
            chosen = rows[start : start + settings["batch"]]
            draws = join([maker.draw(np.random.default_rng([seed, int(row)]), np.array([row])) for row in chosen])
            views = normalise(maker(chosen, draws)[0], entry)
            total += _project(head, _features(teacher, views)).logits.double().mean(1).sum(0)
            advance(len(chosen))
    return (total / len(rows)).float()


def _step(
    networks: Networks, views: list[Tensor], optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], time: float
) -> float:
    """One optimiser step at `time` in [0, 1] of the training; returns the loss."""
    dino, infonce = settings["dino"], settings.get("infonce")
    seen, bottlenecks, logits = [], [], []
    for part in views:
        with torch.set_grad_enabled(not networks.frozen):
            seen.append(_features(networks.student, part))
        projection = _project(networks.student_head, seen[-1])
        bottlenecks.append(projection.bottleneck)
        logits.append(projection.logits)
    with torch.no_grad():
        targets = _project(networks.teacher_head, seen[0] if networks.frozen else _features(networks.teacher, views[0])).logits
    losses = dino["weight"] * dino_losses(
        torch.cat(logits, dim=1),
        targets,
        networks.centre,
        student_temperature=dino["student_temperature"],
        teacher_temperature=dino["teacher_temperature"],
    )
    weight = infonce["weight"][0] + time * (infonce["weight"][1] - infonce["weight"][0]) if infonce else 0
    if infonce and weight:
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


def _features(network: nn.Module, views: Tensor) -> Tensor:
    """Features (B, V, D) of views (B, V, 3, H, W)."""
    flat = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    features: Tensor = network(flat)
    return features.unflatten(0, views.shape[:2])


def _project(head: DinoHead, features: Tensor) -> Projection:
    """Bottlenecks (B, V, d) and logits (B, V, K) of features (B, V, D)."""
    projection = head(features.flatten(0, 1))
    shape = features.shape[:2]
    return Projection(*(part.unflatten(0, shape) for part in projection))


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
