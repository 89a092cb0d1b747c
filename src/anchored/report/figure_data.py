"""The numbers behind the figures: accuracy against strength, and the share of Fisher information by layer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from anchored.evaluate.selection import SEED, Rule
from anchored.evaluate.study import Arm, Experiment

_MOST_LAYERS = 24
_FIRST = ("conv1", "bn1", "stem", "patch_embed", "cls_token", "reg_token", "pos_embed")


@dataclass(frozen=True)
class Curve:
    """Mean and sd over seeds of the test WGA of one arm at each strength."""

    arm: str
    strengths: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]


@dataclass(frozen=True)
class Mass:
    """Shares of parameters and of the Fisher's trace by layer, for FIMs of one architecture."""

    layers: tuple[str, ...]
    parameters: tuple[float, ...]
    traces: Mapping[str, tuple[float, ...]]


def strength_curves(metrics: pl.DataFrame, experiment: Experiment, rule: Rule) -> list[Curve]:
    """Test WGA against positive strengths at the reference learning rate, for every arm with a strength.

    Each configuration stands for itself; `rule` picks only the epoch, per seed, where several are stored. Without a
    reference rate all configurations of an arm have to share one rate, else the arm is left out.
    """
    curves = []
    for arm in experiment.arms.values():
        at_rate = _strengths_at_one_rate(arm, experiment.reference_lr)
        points = [(strength, _picked_wga(metrics, experiment, arm.name, name, rule)) for strength, name in at_rate]
        points = [(strength, values) for strength, values in points if len(values)]
        if len(points) >= 2:
            curves.append(
                Curve(
                    arm.name,
                    tuple(strength for strength, _ in points),
                    tuple(float(values.mean()) for _, values in points),
                    tuple(float(values.std(ddof=1)) if len(values) > 1 else 0.0 for _, values in points),
                )
            )
    return curves


def fisher_mass(fishers: Mapping[str, Mapping[str, npt.NDArray[np.floating]]]) -> list[Mass]:
    """Shares by layer, one `Mass` for all FIMs whose parameters have the same names.

        share(layer) = sum of F over the layer's parameters / sum of F over all          (of the trace)
        share(layer) = number of the layer's parameters / number of all                  (of the parameters)

    A layer is a module name, cut at the greatest depth that leaves at most 24 layers (a ViT's blocks).
    """
    families: dict[tuple[str, ...], list[str]] = {}
    for name, tensors in fishers.items():
        families.setdefault(tuple(sorted(tensors)), []).append(name)
    return [_mass({name: fishers[name] for name in names}) for names in families.values()]


def layer_names(parameters: list[str]) -> dict[str, str]:
    """Maps each parameter to its layer."""
    modules = {name: name.rsplit(".", 1)[0].split(".") for name in parameters}
    deepest = max(len(parts) for parts in modules.values())
    for depth in range(deepest, 0, -1):
        layers = {name: ".".join(parts[:depth]) for name, parts in modules.items()}
        if len(set(layers.values())) <= _MOST_LAYERS:
            break
    return layers


def _mass(fishers: Mapping[str, Mapping[str, npt.NDArray[np.floating]]]) -> Mass:
    first = next(iter(fishers.values()))
    layer_of = layer_names(list(first))
    layers = sorted(set(layer_of.values()), key=reading_order)
    sizes = dict.fromkeys(layers, 0)
    for name, tensor in first.items():
        sizes[layer_of[name]] += tensor.size
    traces = {}
    for fim, tensors in fishers.items():
        sums = dict.fromkeys(layers, 0.0)
        for name, tensor in sorted(tensors.items()):
            sums[layer_of[name]] += float(np.sum(tensor, dtype=np.float64))
        total = sum(sums.values())
        traces[fim] = tuple(sums[layer] / total if total else 0.0 for layer in layers)
    return Mass(tuple(layers), tuple(sizes[layer] / sum(sizes.values()) for layer in layers), traces)


def reading_order(layer: str) -> tuple[int, list[tuple[int, int, str]]]:
    """Stem first, then by name with numbers as numbers: files store tensors in alphabetical order, not in the network's."""
    stem = layer.split(".")[0]
    parts = []
    for part in layer.split("."):
        number = re.search(r"\d+$", part)
        name = part[: number.start()] if number else part
        # Of one block: conv1, bn1 before conv2, bn2; of one stage: block 2 before block 10.
        parts.append((0 if number else 1, int(number.group()) if number else 0, name))
    return (_FIRST.index(stem) if stem in _FIRST else len(_FIRST)), parts


def _strengths_at_one_rate(arm: Arm, reference_lr: float | None) -> list[tuple[float, str]]:
    anchored = {name: hyper for name, hyper in arm.hyper.items() if hyper.get("strength", 0.0) > 0}
    rates = {hyper.get("lr") for hyper in anchored.values()}
    if reference_lr is None and len(rates) > 1:
        return []
    found = [
        (h["strength"], name) for name, h in anchored.items() if reference_lr is None or h.get("lr") == reference_lr
    ]
    return sorted(found)


def _picked_wga(
    metrics: pl.DataFrame, experiment: Experiment, arm: str, configuration: str, rule: Rule
) -> npt.NDArray[np.float64]:
    rows = metrics.filter(
        pl.col("experiment") == experiment.name, pl.col("arm") == arm, pl.col("configuration") == configuration
    )
    picks = rule.pick(rows, [configuration]).select(*SEED, "cell", "epoch")
    test = rows.filter(pl.col("split") == "test").select("cell", "epoch", "worst_group")
    return (
        picks.join(test, on=["cell", "epoch"], how="left", maintain_order="left")["worst_group"].drop_nulls().to_numpy()
    )
