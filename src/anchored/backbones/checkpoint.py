"""Checkpoints: one safetensors file with every network of a backbone.

    student.<parameter>   teacher.<parameter>   student_head.<...>   teacher_head.<...>   centre

Where student and teacher are one network, as in most imports, it is stored once, as the student. Heads and centre are there where
the backbone has an SSL loss.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from anchored.backbones.build import build
from anchored.errors import InputError
from anchored.files import write_bytes

Tensors = dict[str, Tensor]


def save_checkpoint(path: Path, networks: Mapping[str, nn.Module], extra: Mapping[str, Tensor]) -> None:
    """Writes the state of all `networks`, prefixed by their names, and the `extra` tensors."""
    tensors = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    tensors |= dict(extra)
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_bytes(path, safetensors.torch.save(contiguous, metadata={"format": "anchored-checkpoint-1"}))


def load_tensors(path: Path, *, made_by: str) -> Tensors:
    """All tensors of a safetensors file, checked to be finite.

    Raises:
        InputError: the file is missing, truncated, no safetensors, or holds a value that is not finite.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing.", f"run `{made_by}`.") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or no safetensors file: {error}.", f"run `{made_by} --force`.") from error
    check_finite(path, tensors)
    return tensors


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises InputError with the names of the tensors that hold NaN or infinity."""
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise InputError(
            f"{path} holds NaN or infinity in {', '.join(bad[:3])}{more}.",
            "the training that made it diverged or the file is damaged: make or fetch it again.",
        )


def network(tensors: Tensors, name: str) -> Tensors:
    """The state of one network of a checkpoint; empty where there is none."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def trunk(tensors: Tensors, which: str) -> Tensors:
    """The state of the backbone `which`, student or teacher."""
    return network(tensors, which) or network(tensors, "student")


def load_anchor(path: Path, entry: Mapping[str, Any], *, made_by: str) -> tuple[nn.Module, Tensors]:
    """The network that fine-tuning starts from, in evaluation mode, and all tensors of the checkpoint.

    Args:
        path: `model.safetensors` of a backbone.
        entry: the backbone's entry in the plan.
        made_by: the command that makes the file.

    Raises:
        InputError: the file is unusable, or its tensors do not fit the plan's architecture.
    """
    tensors = load_tensors(path, made_by=made_by)
    model = build(entry["architecture"])
    load_state(model, network(tensors, entry["anchor"]), where=f"{path} ({entry['anchor']})")
    return model.eval(), tensors


def load_state(model: nn.Module, state: Tensors, *, where: str) -> None:
    """Loads `state` into `model`, strictly.

    Raises:
        InputError: missing or surplus names, or a shape that differs; names the first of each.
    """
    own = model.state_dict()
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or surplus:
        raise InputError(
            f"{where} does not fit the architecture: {len(missing)} tensors are missing ({', '.join(missing[:3])}), "
            f"{len(surplus)} are not known ({', '.join(surplus[:3])}).",
            "check architecture and weights of this backbone in the configuration.",
        )
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise InputError(f"{where}: {name} has shape {tuple(value.shape)}, not {tuple(own[name].shape)}.")
    model.load_state_dict(state)
