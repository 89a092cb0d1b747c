"""Imported backbones: from somebody else's file, or timm's weights, to networks of the plan's architecture.

timm keeps beside each of its classes the function that turns published layouts into its own (`checkpoint_filter_fn`): names of
DINOv2 and CLIP, the grid of positions at another size. What it changes is recorded; what then does not fit is refused.
"""

import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from anchored.backbones.build import build, cached_weights, with_timm_weights
from anchored.backbones.checkpoint import Tensors, load_state
from anchored.backbones.features import channel_statistics, feature_width
from anchored.backbones.foreign import Foreign, read_foreign
from anchored.backbones.heads import DinoHead
from anchored.backbones.published import published_head
from anchored.errors import ConfigError, InputError
from anchored.files import file_digest
from anchored.provenance import read_source

log = logging.getLogger("anchored")

# What published files hold for their own training only.
_UNUSED = ("mask_token",)
_UNPIN = "leave weights.digest out."


@dataclass
class Imported:
    """What an import makes.

    Args:
        networks: backbones by name; `student` always, `teacher` where it is another one.
        heads: their projection heads by the same names.
        centre: (K,) centre of the teacher's logits.
        facts: measurements of the record.
    """

    networks: dict[str, nn.Module]
    heads: dict[str, DinoHead] = field(default_factory=dict)
    centre: Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def import_weights(entry: Mapping[str, Any], root: Path) -> Imported:
    """The networks of an entry with `weights`: from a local file or from timm.

    Returns:
        the networks of the file; heads and centre as far as the plan wants them and the file has them.

    Raises:
        InputError: the file is missing, has another digest, is no plain tensor file, or does not fit.
        ConfigError: the plan wants a network that the file does not have, or heads of other sizes.
        EnvironmentFailure: timm's weights cannot be fetched.
    """
    weights = entry["weights"]
    mean, std = channel_statistics(entry)
    facts: dict[str, Any] = {"source": {"name": weights["source"]}, "input": {"mean": list(mean), "std": list(std)}}
    if weights["timm"]:
        model = with_timm_weights(entry["architecture"])
        path = cached_weights(model)
        if path is not None:
            facts["digest"] = _digest(path, weights)
            load_state(model, _fitted(model, read_foreign(path).student, path, facts), where=str(path))
        elif weights["digest"]:
            raise InputError(f"timm did not say which file {weights['source']} is, so its digest cannot be checked.", _UNPIN)
        return Imported({"student": model}, facts=facts)
    path = root / weights["checkpoint"]
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is missing"
        raise InputError(f"{path} {what}.", "place the file there, or correct weights.checkpoint in the configuration.")
    facts |= {"digest": _digest(path, weights)}
    facts["source"] |= _beside(path)
    return _networks(entry, read_foreign(path), path, facts)


def _networks(entry: Mapping[str, Any], found: Foreign, path: Path, facts: dict[str, Any]) -> Imported:
    if entry["anchor"] == "teacher" and not found.teacher:
        raise ConfigError(
            f"backbones.{entry['family']}.anchor is teacher, but {path} holds one network.", "leave anchor out: it is the student."
        )
    if entry["head"] and entry["head"]["from"] == "trained" and found.teacher:
        raise ConfigError(
            f"backbones.{entry['family']}.head.from is trained, which needs one network; {path} holds student and teacher.",
            "use its own heads (from: checkpoint), or a file of the one backbone that you mean.",
        )
    facts["layout"] = found.layout
    imported = Imported({}, facts=facts)
    for name in ("student", "teacher"):
        if state := getattr(found, name):
            model = build(entry["architecture"])
            load_state(model, _fitted(model, state, path, facts), where=f"{path} ({name})" if found.teacher else str(path))
            imported.networks[name] = model
    if entry["head"] and entry["head"]["from"] == "checkpoint":
        for name in ("student", "teacher"):
            state, model = getattr(found, f"{name}_head"), imported.networks["student"]
            imported.heads[name] = published_head(state, model, entry, where=name, path=path)
        if found.centre is not None:
            outputs = entry["head"]["dino"]["prototypes"]
            if len(found.centre) != outputs:
                raise InputError(f"{path}: the centre has {len(found.centre)} values, the heads {outputs} outputs.")
            imported.centre = found.centre
    return imported


def _digest(path: Path, weights: Mapping[str, Any]) -> str:
    digest = file_digest(path)
    if weights["digest"] and digest != weights["digest"]:
        raise InputError(f"{path} has SHA-256 {digest}, the plan pins {weights['digest']}.", "use the right file.")
    log.info("%s: SHA-256 %s%s", path, digest, "" if weights["digest"] else " (not pinned by weights.digest)")
    return digest


def _fitted(model: nn.Module, state: Tensors, path: Path, facts: dict[str, Any]) -> Tensors:
    """`state` in the layout of `model`; what is changed on the way goes into `facts`."""
    _check_patches(model, state, path)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    fitted = dict(convert(dict(state), model)) if convert else dict(state)
    if "pos_embed" in state and "pos_embed" in fitted and hasattr(model, "patch_embed"):
        side, grid = math.isqrt(state["pos_embed"].shape[1]), tuple(cast(Any, model).patch_embed.grid_size)
        if (side, side) != grid:
            facts["resampled"] = {"pos_embed": f"{side}x{side} to {grid[0]}x{grid[1]}, bicubic, anti-aliased"}
            log.info("%s: pos_embed resampled from %s", path, facts["resampled"]["pos_embed"])
    surplus = {name: fitted.pop(name) for name in _classifier(model, fitted)}
    surplus |= {name: state[name] for name in _UNUSED if name in state and name not in fitted}
    for name, tensor in surplus.items():
        facts.setdefault("dropped", {})[name] = list(tensor.shape)
        log.info("%s: %s %s is no part of the backbone and is dropped", path, name, tuple(tensor.shape))
    return fitted


def _check_patches(model: nn.Module, state: Tensors, path: Path) -> None:
    """Refuses another patch size, whose filters timm would resample: another network."""
    name = "patch_embed.proj.weight"
    own = model.state_dict().get(name)
    if own is not None and name in state and state[name].ndim == 4 and state[name].shape != own.shape:
        raise InputError(
            f"{path}: {name} has shape {tuple(state[name].shape)}, not {tuple(own.shape)}.",
            "check architecture and weights of this backbone in the configuration.",
        )


def _classifier(model: nn.Module, state: Tensors) -> list[str]:
    """Tensors of `state` that are the linear classifier which timm knows for this architecture, and only if they are all that is
    too much.
    """
    found = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = [f"{name}.{leaf}" for name in ([found] if isinstance(found, str) else found) for leaf in ("weight", "bias")]
    surplus = state.keys() - model.state_dict().keys()
    width = feature_width(model)
    is_linear = all(state[name].shape[1:] == (() if name.endswith("bias") else (width,)) for name in surplus if name in names)
    return [name for name in names if name in surplus] if surplus <= set(names) and is_linear else []


def _beside(path: Path) -> dict[str, Any]:
    """What `FILE.source.json` beside the file says, as `file`; nothing where there is none."""
    found = read_source(path)
    return {"file": found.model_dump(mode="json", exclude={"schema_version", "files"})} if found else {}
