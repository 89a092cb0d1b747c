"""The SSL loss of each image as a function of the backbone alone: what a Fisher is the Fisher of.

Heads, teacher and centre are fixed parts of the function, in evaluation mode and fp32; gradients flow through the student's
head into the backbone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anchored.backbones.heads import DinoHead
from anchored.objectives.dino import dino_losses, sampled_losses

Batch = Mapping[str, Tensor]
Network = Callable[[Tensor], Tensor]


class DinoImageLoss:
    """loss(model, batch) -> (B,): the DINO loss of each image over all its views.

    Args:
        head: the student's head.
        teacher: backbone and head of the targets; None for the estimator `sampled`, which needs none.
        centre: (K,) centre of the teacher's logits.
        settings: `dino` of the pre-training in the plan (temperatures).
        estimator: `teacher` (soft targets: the squared SSL gradient, an empirical Fisher) or `sampled` (labels drawn from the
            model's own prediction: the true Fisher, Monte Carlo).
        autocast: arithmetic of the backbones, torch.bfloat16 for example; heads and loss keep the type of the views, since rounded
            logits, divided by a low temperature, would be percents off.

    A batch has `large` (B, G, 3, S, S) normalised global views, optionally `small` (B, L, 3, s, s), and `uniforms` (B, G + L)
    for the drawn labels.
    """

    def __init__(
        self,
        head: DinoHead,
        teacher: tuple[nn.Module, DinoHead] | None,
        centre: Tensor,
        settings: Mapping[str, Any],
        *,
        estimator: str,
        autocast: torch.dtype | None = None,
    ) -> None:
        self._head = _fixed(head)
        self._teacher = None if teacher is None else (_fixed(teacher[0]), _fixed(teacher[1]))
        self._centre = centre
        self._settings = settings
        self._sampled = estimator == "sampled"
        self._autocast = autocast

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss (B,) of each image under `model`."""
        student = self.student_logits(model, batch)
        temperature = self._settings["student_temperature"]
        if self._sampled or self._teacher is None:
            return sampled_losses(student, batch["uniforms"], student_temperature=temperature)
        with torch.no_grad():
            targets = self._logits(*self._teacher, batch["large"])
        return dino_losses(
            student,
            targets,
            self._centre,
            student_temperature=temperature,
            teacher_temperature=self._settings["teacher_temperature"],
        )

    def student_logits(self, network: Network, batch: Batch) -> Tensor:
        """Logits (B, G + L, K) that the student's head makes of the features of `network`."""
        parts = [batch[name] for name in ("large", "small") if name in batch]
        return torch.cat([self._logits(network, self._head, views) for views in parts], dim=1)

    def _logits(self, network: Network, head: DinoHead, views: Tensor) -> Tensor:
        """Logits (B, V, K) of views (B, V, 3, H, W); the rows of an image stay neighbours."""
        flat = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(views.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            features = network(flat)
        return head(features.to(views.dtype)).logits.unflatten(0, views.shape[:2])


def _fixed(module: nn.Module) -> Any:
    return module.eval().requires_grad_(False)
