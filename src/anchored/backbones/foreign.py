"""Files of weights that somebody else wrote: what is in them, without running any of it.

Pickles are opened with torch's `weights_only=True`, which builds tensors and plain containers and refuses every other name. One
name is added: `argparse.Namespace`, which DINO's full checkpoints hold (`args`). It is safe: its constructor and its state do
nothing but set attributes of a fresh object, and nothing here reads them.

    kind                    content
    trunk                   a flat mapping of names to tensors, possibly inside of {"state_dict": ...} or {"model": ...}
    DINO full checkpoint    {"student": module.backbone.*, module.head.*; "teacher": backbone.*, head.*; args, ...}
"""

import argparse
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from anchored.backbones.checkpoint import Tensors, check_finite
from anchored.errors import InputError

_WRAPPERS = ("state_dict", "model")
# Mappings around the tensors; published files have one or two.
_DEEPEST = 4
_DAMAGED = "fetch the file again."


@dataclass
class Foreign:
    """The networks of a file, under the names that the file gives them.

    Args:
        student: the backbone.
        teacher: the teacher's, in a full checkpoint.
        student_head: the student's projection head, in a full checkpoint.
        teacher_head: the teacher's.
        centre: (K,) centre of the teacher's logits, where the file has one.
        layout: which kind of file it is, in words.
    """

    student: Tensors
    teacher: Tensors = field(default_factory=dict)
    student_head: Tensors = field(default_factory=dict)
    teacher_head: Tensors = field(default_factory=dict)
    centre: Tensor | None = None
    layout: str = "trunk"


def read_foreign(path: Path) -> Foreign:
    """Reads a file of weights, recognised by its content.

    Raises:
        InputError: truncated, no file of tensors, a pickle with code in it (names it), NaN, or student and teacher are incomplete.
    """
    content = _content(path)
    if _is_state(content.get("student")) and _is_state(content.get("teacher")):
        found = _full_checkpoint(path, content)
    else:
        found = Foreign(_unwrapped(_flat(path, content)))
    for part in ("student", "teacher", "student_head", "teacher_head"):
        check_finite(path, {f"{part}.{name}" if found.teacher else name: tensor for name, tensor in getattr(found, part).items()})
    check_finite(path, {"dino_loss.center": found.centre} if found.centre is not None else {})
    return found


def _content(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        start = stream.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        try:
            return dict(safetensors.torch.load_file(path))
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path} is truncated or no safetensors file: {error}.", _DAMAGED) from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped, an optimiser's state is never read.
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises many types for a bad pickle; none of them may run code
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            message = f"{path} is no plain tensor file: it calls '{refused[1]}'."
            raise InputError(message, "only files of tensors are read.") from error
        raise InputError(f"{path} is truncated, or no file of tensors.", _DAMAGED) from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no flat mapping of names to tensors, but a {type(value).__name__}.")
    return value


def _flat(path: Path, content: dict[str, Any]) -> Tensors:
    value: Any = content
    for _ in range(_DEEPEST):  # a pickle can hold itself
        if not isinstance(value, dict) or _is_state(value):
            break
        inner = [value[name] for name in _WRAPPERS if isinstance(value.get(name), dict)]
        if not inner and len(value) == 1:
            inner = [next(iter(value.values()))]
        if not inner:
            keys = ", ".join(map(str, list(value)[:5]))
            raise InputError(f"{path} holds no flat mapping of names to tensors; it has: {keys or 'nothing'}.")
        value = inner[0]
    if not _is_state(value):
        raise InputError(f"{path} holds no flat mapping of names to tensors.")
    return dict(value)


def _full_checkpoint(path: Path, content: Mapping[str, Any]) -> Foreign:
    parts: dict[str, Tensors] = {}
    for name in ("student", "teacher"):
        state = _unwrapped(content[name])
        parts[name], parts[f"{name}_head"] = (_below(state, prefix) for prefix in ("backbone.", "head."))
        surplus = [key for key in state if not key.startswith(("backbone.", "head."))]
        if surplus:
            first = f"{len(surplus)} tensors outside of backbone.* and head.*: {', '.join(surplus[:3])}"
            raise InputError(f"{path}: {name} has {first}.", "only DINO's own full checkpoints are known.")
        if not parts[name]:
            raise InputError(f"{path}: {name} has no backbone.*.", "only DINO's own full checkpoints are known.")
    loss = content.get("dino_loss")
    centre = loss.get("center") if isinstance(loss, dict) else None
    found = centre.flatten().float() if isinstance(centre, Tensor) else None
    return Foreign(**parts, centre=found, layout="DINO full checkpoint")


def _unwrapped(state: Mapping[str, Tensor]) -> Tensors:
    """Without the prefix that DistributedDataParallel puts before every name."""
    wrapped = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in state.items()}


def _below(state: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
