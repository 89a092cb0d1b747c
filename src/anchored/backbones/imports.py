"""Imported backbones: from somebody else's file, or timm's weights, to networks of the plan's architecture.

timm keeps beside each of its classes the function that turns published layouts into its own (`checkpoint_filter_fn`): names of
DINOv2 and CLIP, the grid of positions at another size. What it changes is recorded; what then does not fit is refused.
"""

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from anchored.backbones.build import build, with_timm_weights
from anchored.backbones.checkpoint import Tensors, load_state
from anchored.backbones.foreign import read_foreign
from anchored.errors import ConfigError, InputError
from anchored.files import file_digest

log = logging.getLogger("anchored")


@dataclass
class Imported:
    """What an import makes.

    Args:
        networks: by name; `student` always.
        extra: further tensors of the checkpoint.
        facts: measurements of the record.
    """

    networks: dict[str, nn.Module]
    extra: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def import_weights(entry: Mapping[str, Any], root: Path) -> Imported:
    """The backbone of an entry with `weights`: from a local file or from timm.

    Raises:
        InputError: the file is missing, has another digest, is no plain tensor file, or does not fit.
        ConfigError: the plan wants a network that the file does not have.
    """
    weights = entry["weights"]
    if weights["timm"]:
        return Imported({"student": with_timm_weights(entry["architecture"])}, facts={"source": {"name": weights["source"]}})
    path = root / weights["checkpoint"]
    if not path.exists():
        raise InputError(f"{path} is missing.", "place the file there, or correct weights.checkpoint in the configuration.")
    digest = file_digest(path)
    if weights["digest"] and digest != weights["digest"]:
        raise InputError(f"{path} has SHA-256 {digest}, the plan pins {weights['digest']}.", "use the right file.")
    log.info("%s: SHA-256 %s%s", path, digest, "" if weights["digest"] else " (not pinned by weights.digest)")
    found = read_foreign(path)
    if entry["anchor"] == "teacher" and not found.teacher:
        raise ConfigError(
            f"backbones.{entry['family']}.anchor is teacher, but {path} holds one network.", "leave anchor out: it is the student."
        )
    facts: dict[str, Any] = {"source": _source(path, weights), "digest": digest, "layout": found.layout}
    imported = Imported({}, facts=facts)
    for name, state in {"student": found.student, "teacher": found.teacher}.items():
        if state:
            model = build(entry["architecture"])
            load_state(model, _fitted(model, state, path, facts), where=str(path))
            imported.networks[name] = model
    return imported


def _fitted(model: nn.Module, state: Tensors, path: Path, facts: dict[str, Any]) -> Tensors:
    """`state` in the layout of `model`; what is changed on the way goes into `facts`."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    fitted = dict(convert(dict(state), model)) if convert else dict(state)
    for name, tensor in fitted.items():
        before = state.get(name)
        if before is None or before.shape == tensor.shape:
            continue
        if name != "pos_embed":
            raise InputError(f"{path}: {name} has shape {tuple(before.shape)}, not {tuple(tensor.shape)}.")
        text = f"{tuple(before.shape)} to {tuple(tensor.shape)}, bicubic, anti-aliased"
        facts.setdefault("resampled", {})[name] = text
        log.info("%s: pos_embed resampled from %s", path, text)
    for name in _classifier(model, fitted):
        facts.setdefault("dropped", {})[name] = list(fitted[name].shape)
        log.info("%s: classifier's %s %s dropped", path, name, tuple(fitted[name].shape))
        del fitted[name]
    return fitted


def _classifier(model: nn.Module, state: Tensors) -> list[str]:
    """Tensors of `state` that are the linear classifier which timm knows for this architecture, and only if they are all that is
    too much.
    """
    found = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = [f"{name}.{leaf}" for name in ([found] if isinstance(found, str) else found) for leaf in ("weight", "bias")]
    surplus = state.keys() - model.state_dict().keys()
    width = model.num_features
    is_linear = all(state[name].shape[1:] == (() if name.endswith("bias") else (width,)) for name in surplus if name in names)
    return [name for name in names if name in surplus] if surplus <= set(names) and is_linear else []


def _source(path: Path, weights: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights are: the plan's words, and the file's own `FILE.source.json` where it lies beside it."""
    beside = path.with_name(f"{path.name}.source.json")
    source: dict[str, Any] = {"name": weights["source"]}
    if not beside.exists():
        return source
    try:
        value = json.loads(beside.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{beside} is no JSON: {error}.", "correct or remove it.") from error
    if not isinstance(value, dict) or value.get("schema") != 1:
        raise InputError(f"{beside} is no description of a source: it lacks schema 1.", "correct or remove it.")
    return source | {"file": {key: value[key] for key in value if key != "schema"}}
