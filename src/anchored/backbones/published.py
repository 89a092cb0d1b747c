"""DINO's projection heads as published, turned into `DinoHead`.

    head            MLP keys                        last layer                                   outputs
    ViT             mlp.0, mlp.2, mlp.4             weight-normed: weight_g, weight_v            65,536
    ResNet-50       mlp.0, mlp.1 (BatchNorm), mlp.3 last_layer.weight as it is                   60,000

Newer versions of torch spell weight normalisation `parametrizations.weight.original0`, `original1`. The weight of output k is
g_k v_k / |v_k|; DINO fixes g at 1, which is a normalised prototype v_k. The numbers of the file do not change.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from anchored.backbones.checkpoint import Tensors, load_state
from anchored.backbones.features import feature_width
from anchored.backbones.heads import SIZES, DinoHead, dino_head
from anchored.errors import ConfigError, InputError

_NORMED = (
    ("last_layer.weight_g", "last_layer.weight_v"),
    ("last_layer.parametrizations.weight.original0", "last_layer.parametrizations.weight.original1"),
)


def published_head(state: Tensors, model: nn.Module, entry: Mapping[str, Any], *, where: str, path: Path) -> DinoHead:
    """The head of a checkpoint.

    Args:
        state: its tensors, without a prefix.
        model: the backbone whose features it takes.
        entry: the backbone's entry in the plan; `head.dino` has to say what the head looks like.
        where: `student` or `teacher`, for messages.
        path: the file, for messages.

    Raises:
        ConfigError: the sizes of the plan are not those of the file; names the keys and their values.
        InputError: the file has no head of that network, or tensors of no published one.
    """
    if not state:
        raise InputError(
            f"{path} holds no projection head of the {where}.",
            f"use a full checkpoint, or set backbones.{entry['family']}.head.from: trained.",
        )
    own, sizes = _translated(state, where, path)
    dino = entry["head"]["dino"]
    wrong = {key: sizes[key] for key in SIZES if sizes[key] != dino[key] and not (key == "hidden" and sizes["layers"] == 1)}
    if wrong:
        found = ", ".join(f"{key} {_yaml(value)}" for key, value in wrong.items())
        given = ", ".join(f"{key} {_yaml(dino[key])}" for key in wrong)
        values = ", ".join(f"{key}: {_yaml(value)}" for key, value in wrong.items())
        raise ConfigError(
            f"{path}: the {where}'s head has {found}; the plan says {given}.",
            f"set backbones.{entry['family']}.head.dino to {{{values}}}.",
        )
    head = dino_head(feature_width(model), dino, seed=0)
    load_state(head, own, where=f"{path} (head of the {where})")
    return head


def _translated(state: Tensors, where: str, path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors under the names of `DinoHead`, and what it looks like as `dino` of the plan says it."""
    own = {name: tensor for name, tensor in state.items() if not name.startswith("last_layer.")}
    prototypes, normalised, used = _last_layer(state)
    surplus = sorted(state.keys() - own.keys() - set(used))
    weights = [tensor for name, tensor in own.items() if name.startswith("mlp.") and tensor.ndim == 2]
    if prototypes is None or surplus or not weights:
        raise InputError(
            f"{path}: the head of the {where} is none that DINO published; it has: {', '.join(sorted(state)[:6])}.",
            "see src/anchored/backbones/published.py for those that are known.",
        )
    own["prototypes"] = prototypes
    return own, {
        "layers": len(weights),
        "hidden": weights[0].shape[0],
        "batch_norm": any(name.endswith("running_mean") for name in own),
        "bottleneck": prototypes.shape[1],
        "prototypes": prototypes.shape[0],
        "normalised": normalised,
    }


def _last_layer(state: Tensors) -> tuple[Tensor | None, bool, tuple[str, ...]]:
    """Prototypes (K, d), whether they are to be normalised, and the tensors they were made of."""
    for names in _NORMED:
        if all(name in state for name in names):
            length, direction = (state[name] for name in names)
            if bool((length == 1).all()):
                return direction, True, names
            return direction * (length / direction.norm(dim=1, keepdim=True)), False, names
    return state.get("last_layer.weight"), False, ("last_layer.weight",)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
