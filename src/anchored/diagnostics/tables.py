"""The tables of `anchored fim-stats`, in the three forms of the report's tables."""

import math
from collections.abc import Mapping

import polars as pl

from anchored.diagnostics.correlation import Alike
from anchored.diagnostics.noise import TARGET, SplitHalf
from anchored.diagnostics.summary import SHARES, Summary, masses
from anchored.report.table import Table
from anchored.report.text import fixed, percent

Pairs = Mapping[tuple[str, str], Alike]


def conditioning_table(summaries: Mapping[str, Summary]) -> Table:
    """How uneven each FIM is under each conditioning."""
    rows, values = [], []
    for fim, summary in summaries.items():
        for kind, found in summary.conditioned.items():
            figures = {
                "min": found.min, "max": found.max, "condition_number": found.condition_number,
                "condition_ratio": found.condition_ratio, "effective_rank": found.effective_rank,
                "effective_rank_share": found.effective_rank / found.entries if found.entries else 0.0, "zeros": found.zeros,
            }  # fmt: skip
            numbers = [*map(scientific, list(figures.values())[:4]), fixed(found.effective_rank, 1)]
            rows.append((fim, kind, *numbers, percent(float(figures["effective_rank_share"])), str(found.zeros)))
            values.append({"fim": fim, "conditioning": kind, "entries": found.entries, **figures})
    return Table(
        name="conditioning",
        title="How uneven F is",
        caption="Smallest non-zero and largest entry, their ratio, the ratio of the 95 % and 5 % quantiles of the non-zero "
        "entries, and the effective rank (sum F)² / sum F², also in percent of the parameters.",
        header=("FIM", "conditioning", "min", "max", "max / min", "q95 / q05", "effective rank", "% of n", "zeros"),
        rows=tuple(rows),
        notes=("All but `none` have mean 1.",),
        values=pl.DataFrame(values),
        left=2,
    )


def quantile_table(summaries: Mapping[str, Summary]) -> Table:
    """Size, trace and quantiles of each raw FIM."""
    rows, values = [], []
    for fim, summary in summaries.items():
        raw = summary.raw
        figures = (raw.trace, raw.trace / raw.entries, *summary.quantiles)
        rows.append((fim, str(raw.entries), *map(scientific, figures)))
        named = {f"q{100 * share:02.0f}": value for share, value in zip(SHARES, summary.quantiles, strict=True)}
        values.append({"fim": fim, "entries": raw.entries, "trace": raw.trace, "mean": raw.trace / raw.entries, **named})
    return Table(
        name="quantiles",
        title="Raw F",
        caption="Trace, mean and quantiles of all entries, zeros included.",
        header=("FIM", "entries", "trace", "mean", *(f"{100 * share:g} %" for share in SHARES)),
        rows=tuple(rows),
        notes=(),
        values=pl.DataFrame(values),
    )


def layer_table(summaries: Mapping[str, Summary]) -> Table:
    """Where the mass is: one line a layer, one column a FIM; FIMs with other parameters have lines of their own."""
    fims = list(summaries)
    rows, values = [], []
    for mass in masses(summaries):
        for index, (layer, share) in enumerate(zip(mass.layers, mass.parameters, strict=True)):
            traces = {fim: mass.traces[fim][index] for fim in fims if fim in mass.traces}
            rows.append((layer, percent(share), *(percent(traces[fim]) if fim in traces else "" for fim in fims)))
            values += [{"layer": layer, "fim": fim, "parameters": share, "trace": trace} for fim, trace in traces.items()]
    return Table(
        name="layers",
        title="Where the mass of F is",
        caption="Percent of the parameters and of the trace.",
        header=("layer", "parameters", *fims),
        rows=tuple(rows),
        notes=(),
        values=pl.DataFrame(values),
    )


def correlation_table(pairs: Pairs) -> Table:
    """How alike the FIMs are that share their parameters."""
    rows, values = [], []
    for (one, other), alike in pairs.items():
        rank, log = median(alike.rank_of), median(alike.log_of)
        rows.append((one, other, *(fixed(value, 3) for value in (alike.rank, rank, alike.log, log, alike.top))))
        overall = {"rank": alike.rank, "log": alike.log, "top": alike.top, "sampled": alike.sampled}
        values.append({"fim": one, "other": other, "tensor": "", **overall})
        for name, value in alike.rank_of.items():
            part = {"rank": value, "log": alike.log_of[name], "top": None, "sampled": None}
            values.append({"fim": one, "other": other, "tensor": name, **part})
    sampled = sorted({alike.sampled for alike in pairs.values()})
    return Table(
        name="correlations",
        title="How alike FIMs are",
        caption="Rank correlation (Spearman) and correlation of log F: over all entries, and the median over tensors of the "
        "correlation within; share of the largest 1 % that both have in common.",
        header=("FIM", "FIM", "rank, all", "rank, within", "log, all", "log, within", "top 1 %"),
        rows=tuple(rows),
        notes=(
            f"Entries compared: {', '.join(f'{count:,}' for count in sampled)} over all, at most 100,000 of a tensor; larger FIMs "
            "are sampled at places drawn from a fixed seed.",
        ),
        values=pl.DataFrame(values, infer_schema_length=None),
        left=2,
    )


def noise_table(found: Mapping[str, SplitHalf]) -> Table:
    """Two halves of n images each against each other."""
    rows, values = [], []
    for fim, split in found.items():
        for half in split.halves:
            law = split.sigma / math.sqrt(half.images)
            rows.append((fim, str(half.images), fixed(half.rank, 3), percent(half.difference), percent(half.overlap),
                         percent(half.noise), percent(law)))  # fmt: skip
            values.append({"fim": fim, "images": half.images, "rank": half.rank, "difference": half.difference,
                           "overlap": half.overlap, "noise": half.noise, "law": law})  # fmt: skip
    return Table(
        name="noise",
        title="How many images are enough",
        caption="F on n images against F on n others: rank correlation over entries, median relative difference of entries, "
        "common share of the largest 1 %, and the relative noise of the tensors' means, measured and by the law, in percent.",
        header=("FIM", "n", "rank", "difference %", "top 1 %", "noise of means %", "sigma / sqrt(n) %"),
        rows=tuple(rows),
        notes=tuple(f"{fim}: {enough_text(split)}" for fim, split in found.items()),
        values=pl.DataFrame(values),
    )


def enough_text(split: SplitHalf) -> str:
    """The answer in a sentence."""
    return (
        f"sigma = {split.sigma:.2f} over {split.blocks} blocks of {split.images} images; the means of the tensors are known to "
        f"{100 * TARGET:g} % from {split.enough} images on (95 % interval {split.low} to {split.high}). Exponent of the measured "
        f"noise: {split.exponent:.2f} (law: -0.50). Entries compared: {split.sampled:,}."
    )


def median(values: Mapping[str, float]) -> float:
    """Median of the values that are numbers; nan where none is."""
    numbers = sorted(value for value in values.values() if not math.isnan(value))
    if not numbers:
        return math.nan
    middle = len(numbers) // 2
    return numbers[middle] if len(numbers) % 2 else (numbers[middle - 1] + numbers[middle]) / 2


def scientific(value: float) -> str:
    """Three digits: 3.02e-04; 0 stays 0."""
    return "0" if value == 0 else f"{value:.2e}"
