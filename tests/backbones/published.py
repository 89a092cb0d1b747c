"""Files as DINO and DINOv2 publish them, built here with random numbers, and the published formulas, slow and plain."""

import argparse
import math
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


def vit_head(
    width: int, *, hidden: int = 24, bottleneck: int = 8, outputs: int = 30, seed: int = 0, spelling: str = "g/v"
) -> State:
    """The ViTs' head: three layers without BatchNorm, a weight-normed last layer."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for number, (before, after) in {0: (width, hidden), 2: (hidden, hidden), 4: (hidden, bottleneck)}.items():
        state[f"mlp.{number}.weight"] = torch.randn(after, before, generator=draw) / before**0.5
        state[f"mlp.{number}.bias"] = torch.randn(after, generator=draw) * 0.1
    length, direction = torch.ones(outputs, 1), torch.randn(outputs, bottleneck, generator=draw) * 3
    first, second = {
        "g/v": ("weight_g", "weight_v"), "parametrized": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    }[spelling]  # fmt: skip
    return state | {f"last_layer.{first}": length, f"last_layer.{second}": direction}


def resnet_head(width: int, *, hidden: int = 24, bottleneck: int = 8, outputs: int = 30, seed: int = 0) -> State:
    """The ResNet-50's head: two layers with BatchNorm, a plain last layer."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "mlp.0.weight": torch.randn(hidden, width, generator=draw) / width**0.5,
        "mlp.0.bias": torch.randn(hidden, generator=draw) * 0.1,
        "mlp.1.weight": 1 + torch.rand(hidden, generator=draw),
        "mlp.1.bias": torch.randn(hidden, generator=draw) * 0.1,
        "mlp.1.running_mean": torch.randn(hidden, generator=draw) * 0.1,
        "mlp.1.running_var": 0.5 + torch.rand(hidden, generator=draw),
        "mlp.1.num_batches_tracked": torch.tensor(7),
        "mlp.3.weight": torch.randn(bottleneck, hidden, generator=draw) / hidden**0.5,
        "mlp.3.bias": torch.randn(bottleneck, generator=draw) * 0.1,
        "last_layer.weight": torch.randn(outputs, bottleneck, generator=draw) * 0.7,
    }


def full_checkpoint(student: State, teacher: State, student_head: State, teacher_head: State, **more: Any) -> dict[str, Any]:
    """A whole training state: the student inside of DistributedDataParallel, the options as argparse left them."""
    return {
        "student": {f"module.backbone.{name}": value for name, value in student.items()}
        | {f"module.head.{name}": value for name, value in student_head.items()},
        "teacher": {f"backbone.{name}": value for name, value in teacher.items()}
        | {f"head.{name}": value for name, value in teacher_head.items()},
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "epoch": 400,
        "args": argparse.Namespace(arch="vit_base", out_dim=65536, local_crops_scale=[0.05, 0.25], norm_last_layer=True),
        **more,
    }


def head_logits(state: State, features: Tensor) -> Tensor:
    """The published forward: layers with exact GELU between them, unit length, then products with the last layer's rows."""
    spellings = ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")
    layers = sorted({int(name.split(".")[1]) for name in state if name.startswith("mlp.")})
    linear = [number for number in layers if state[f"mlp.{number}.weight"].ndim == 2]
    rows = []
    for x in features:
        for number in linear:
            x = state[f"mlp.{number}.weight"] @ x + state[f"mlp.{number}.bias"]
            norm = f"mlp.{number + 1}"
            if f"{norm}.running_mean" in state:
                scaled = (x - state[f"{norm}.running_mean"]) / (state[f"{norm}.running_var"] + 1e-5).sqrt()
                x = scaled * state[f"{norm}.weight"] + state[f"{norm}.bias"]
            if number != linear[-1]:
                x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
        x = x / x.norm()
        last = state.get("last_layer.weight")
        for length, direction in spellings:
            if f"last_layer.{length}" in state:
                v = state[f"last_layer.{direction}"]
                last = torch.stack([g * row / row.norm() for g, row in zip(state[f"last_layer.{length}"], v, strict=True)])
        rows.append(last @ x)
    return torch.stack(rows)


def dino_loss(
    student: list[Tensor], teacher: list[Tensor], centre: Tensor, *, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """The published loss of a batch: mean over all pairs of a teacher's view and another of the student's, and over images.

    Logits (B, K), one tensor a view, the large views first.
    """
    total, terms = torch.zeros(()), 0
    for t, targets in enumerate(teacher):
        q = torch.softmax((targets - centre) / teacher_temperature, dim=-1)
        for v, outputs in enumerate(student):
            if v != t:
                total = total + (-q * torch.log_softmax(outputs / student_temperature, dim=-1)).sum(-1).mean()
                terms += 1
    return total / terms


def dinov2_hub(state: State, *, registers: bool) -> State:
    """timm's state of a DINOv2 ViT as the hub's files spell it: with a mask token, positions that include the class token's."""
    state = dict(state)
    state["mask_token"] = torch.zeros(1, state["cls_token"].shape[-1])
    if registers:
        state["register_tokens"] = state.pop("reg_token")
        position = torch.randn(state["cls_token"].shape, generator=torch.Generator().manual_seed(5))
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    return state
