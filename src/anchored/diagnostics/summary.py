"""One FIM in numbers: how uneven it is under each conditioning, where its mass is, and its sorted entries."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from anchored.fisher import FisherStatistics, condition, statistics
from anchored.fisher.conditioning import Kind
from anchored.fisher.statistics import flat, quantiles
from anchored.report.figure_data import Mass, layer_names, reading_order

CONDITIONINGS: tuple[tuple[Kind, float | None], ...] = (
    ("none", None),
    ("normalise", None),
    ("floor", 0.1),
    ("clip", 0.99),
    ("layer-mean", None),
)
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LAYER_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_POINTS = 240


@dataclass(frozen=True)
class Curve:
    """Entries from the largest down: `shares[i]` of all entries are at least `values[i]`."""

    shares: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Summary:
    """The figures of one FIM.

    Args:
        raw: statistics without conditioning, by tensor, too.
        conditioned: the same under each of CONDITIONINGS, by its label, without tensors.
        quantiles: of all entries, zeros included, at SHARES.
        spectrum: sorted entries divided by their mean, under each conditioning (`normalise` changes nothing here).
        layers: quantiles of the non-zero entries of each layer at LAYER_SHARES, divided by the mean of all entries, in the order of
            the network; empty where a layer is zero.
    """

    raw: FisherStatistics
    conditioned: Mapping[str, FisherStatistics]
    quantiles: tuple[float, ...]
    spectrum: Mapping[str, Curve]
    layers: Mapping[str, tuple[float, ...]]


def label(kind: str, value: float | None) -> str:
    """A conditioning as tables print it: "floor 0.1"."""
    return kind if value is None else f"{kind} {value:g}"


def summarise(fisher: Mapping[str, Tensor]) -> Summary:
    """All figures of `fisher`, which is read several times; at most two copies of it are alive at once.

    Raises:
        NumericalError: `fisher` is zero everywhere.
    """
    raw = statistics(fisher)
    mean = raw.trace / raw.entries if raw.entries else 0.0
    entries = flat(fisher.values())
    entries.sort()
    found = tuple(float(entries[max(1, math.ceil(share * len(entries))) - 1]) for share in SHARES)
    spectrum = {"none": _curve(entries, mean)}
    del entries
    conditioned = {"none": raw}
    for kind, value in CONDITIONINGS[1:]:
        weights = condition(fisher, kind, value)
        conditioned[label(kind, value)] = statistics(weights)
        if kind != "normalise":
            entries = flat(weights.values())
            entries.sort()
            spectrum[label(kind, value)] = _curve(entries, 1.0)
            del entries
        del weights
    layers = {}
    for layer, names in tensors_of_layers(list(fisher)).items():
        own = flat(fisher[name] for name in names)
        zeros = len(own) - int(np.count_nonzero(own))
        some = quantiles(own, LAYER_SHARES, skip=zeros) if len(own) > zeros else []
        layers[layer] = tuple(value / mean for value in some)
    return Summary(raw, conditioned, found, spectrum, layers)


def tensors_of_layers(names: Sequence[str]) -> dict[str, list[str]]:
    """Layers (or blocks, where there are many layers) in the order of the network, each with its tensors."""
    layer_of = layer_names(list(names))
    found: dict[str, list[str]] = {layer: [] for layer in sorted(set(layer_of.values()), key=reading_order)}
    for name in names:
        found[layer_of[name]].append(name)
    return found


def masses(summaries: Mapping[str, Summary]) -> list[Mass]:
    """Shares of parameters and of the trace by layer; one `Mass` for all FIMs with the same parameters."""
    families: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for fim, summary in summaries.items():
        sizes = tuple(sorted((name, tensor.entries) for name, tensor in summary.raw.tensors.items()))
        families.setdefault(sizes, []).append(fim)
    found = []
    for sizes, fims in families.items():
        layers = tensors_of_layers([name for name, _ in sizes])
        entries, total = dict(sizes), sum(size for _, size in sizes)
        tensors = {fim: summaries[fim].raw.tensors for fim in fims}
        found.append(
            Mass(
                tuple(layers),
                tuple(sum(entries[name] for name in names) / total for names in layers.values()),
                {fim: tuple(sum(own[name].share for name in names) for names in layers.values()) for fim, own in tensors.items()},
            )
        )
    return found


def _curve(ascending: np.ndarray, mean: float) -> Curve:
    """At most _POINTS entries at ranks that are even on a logarithmic axis; zeros have no place on one."""
    count = len(ascending)
    spaced = np.unique(np.geomspace(1, count, _POINTS).round().astype(np.int64)) if count else np.empty(0, np.int64)
    values = ascending[count - spaced]
    kept = values > 0
    scale = mean or 1.0
    return Curve(tuple((spaced[kept] / count).tolist()), tuple((values[kept] / scale).tolist()))
