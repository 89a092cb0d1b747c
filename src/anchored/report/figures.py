"""The figures: accuracy against strength, accuracy by group, Fisher mass by layer.

Drawn without pyplot and without dates, version strings or random element ids, so that the same numbers give the same
bytes. Colours are Okabe and Ito's palette, which stays distinct for colour-blind readers; arms also differ in marker or
line style.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from anchored.report.figure_data import Curve, Mass
from anchored.report.text import arm_name, number, percent, seeds_text

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "anchored",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": 160,
}

COLOURS: Mapping[str, str] = {
    "erm": "#000000",
    "linear-probe": "#E69F00",
    "freeze": "#009E73",
    "l2sp": "#D55E00",
    "ewc": "#0072B2",
    "ewc-shuffled": "#CC79A7",
}
_SPARE = ("#56B4E9", "#999999", "#F0E442")
_MARKERS: Mapping[str, str] = {"l2sp": "^", "ewc": "o", "ewc-shuffled": "s"}
_DASHES = ("-", (0, (6, 2)), (0, (4, 2, 1, 2)), (0, (1, 1.5)), (0, (2, 3)))


@dataclass(frozen=True)
class Level:
    """A horizontal line: the mean test WGA of an arm without a strength."""

    arm: str
    label: str
    mean: float


@dataclass(frozen=True)
class Bars:
    """Mean and sd of one arm's accuracy on every group."""

    arm: str
    label: str
    means: tuple[float, ...]
    sds: tuple[float, ...]
    hatched: bool = False


def strength_figure(curves: Sequence[Curve], levels: Sequence[Level], *, title: str, seeds: int) -> Figure:
    """Test WGA against the strength of the penalty; bands are one sd over seeds, lines are arms without a strength."""
    figure, axes = _blank(7.0, 3.8)
    for place, level in enumerate(levels):
        # Arms often end at the same accuracy: later lines have gaps, so that earlier ones stay visible below them.
        axes.axhline(
            100 * level.mean, color=_colour(level.arm), linestyle=_DASHES[place % len(_DASHES)], linewidth=1.4,
            label=f"{level.label}: {percent(level.mean)}",
        )  # fmt: skip
    for curve in curves:
        means = [100 * mean for mean in curve.means]
        low, high = ([100 * (m + sign * s) for m, s in zip(curve.means, curve.sds, strict=True)] for sign in (-1, 1))
        colour = _colour(curve.arm)
        axes.fill_between(curve.strengths, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(
            curve.strengths, means, color=colour, marker=_MARKERS.get(curve.arm, "D"), markersize=4.5, linewidth=1.6,
            label=arm_name(curve.arm),
        )  # fmt: skip
    ticks = sorted({strength for curve in curves for strength in curve.strengths})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.set_xlabel("penalty strength λ")
    axes.set_ylabel("worst-group accuracy, test (%)")
    axes.set_title(f"{title}\nmean and sd over {seeds_text(seeds)}", fontsize=9)
    _legend_right(axes)
    return figure


def group_figure(bars: Sequence[Bars], groups: Sequence[str], *, title: str, seeds: int) -> Figure:
    """Test accuracy of every group by arm; error bars are one sd over seeds."""
    figure, axes = _blank(1.6 + 1.7 * len(groups), 3.6)
    width = 0.84 / max(len(bars), 1)
    for place, bar in enumerate(bars):
        offset = (place - (len(bars) - 1) / 2) * width
        axes.bar(
            [index + offset for index in range(len(groups))], [100 * mean for mean in bar.means], width * 0.92,
            yerr=[100 * sd for sd in bar.sds], label=bar.label,
            color="white" if bar.hatched else _colour(bar.arm), edgecolor=_colour(bar.arm), linewidth=0.8,
            hatch="////" if bar.hatched else None,
            error_kw={"elinewidth": 0.9, "capsize": 1.8, "ecolor": "#555555"},
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), [_wrapped(name) for name in groups])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy, test (%)")
    axes.set_title(f"{title}\nmean and sd over {seeds_text(seeds)}", fontsize=9)
    _legend_right(axes)
    return figure


def fisher_figure(mass: Mass, *, title: str) -> Figure:
    """Share of the Fisher's trace by layer (one marker a FIM) against the layer's share of the parameters (bars)."""
    figure, axes = _blank(6.4, 1.3 + 0.24 * len(mass.layers))
    places = range(len(mass.layers))
    axes.barh(places, [100 * share for share in mass.parameters], color="#cccccc", height=0.72, label="parameters")
    palette = (*COLOURS.values(), *_SPARE)
    for index, (name, shares) in enumerate(mass.traces.items()):
        offset = (index - (len(mass.traces) - 1) / 2) * min(0.3, 0.6 / len(mass.traces))
        axes.plot(
            [100 * share for share in shares], [place + offset for place in places], linestyle="none", clip_on=False,
            marker="osD^v"[index % 5], markersize=4.5, color=palette[(index + 4) % len(palette)],
            label=f"trace, {name}",
        )  # fmt: skip
    axes.set_yticks(places, list(mass.layers))
    axes.set_ylim(len(mass.layers) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel("share of the whole network (%)")
    axes.set_title(title, fontsize=9)
    _legend_right(axes)
    return figure


def levels_of(picks: pl.DataFrame, arms: Sequence[tuple[str, str, str]]) -> list[Level]:
    """Mean test WGA of (arm, scope, label) among picks of one rule; arms without picks are left out."""
    found = []
    for arm, scope, label in arms:
        values = picks.filter(pl.col("arm") == arm, pl.col("scope") == scope)["worst_group"].drop_nulls().to_numpy()
        if len(values):
            found.append(Level(arm, label, float(values.mean())))
    return found


def draw(make: Callable[[], Figure]) -> tuple[bytes, bytes]:
    """Draws a figure in the project's style and returns it as (svg, png)."""
    with mpl.rc_context(STYLE):
        figure = make()
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", bbox_inches="tight", metadata={"Software": None})
    return svg.getvalue(), png.getvalue()


def _blank(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _legend_right(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, handlelength=2.4)


def _colour(arm: str) -> str:
    return COLOURS.get(arm) or _SPARE[sum(arm.encode()) % len(_SPARE)]


def _wrapped(name: str) -> str:
    """Breaks a group's name near its middle, at a space."""
    words = name.split()
    cut = (len(words) + 1) // 2
    return "\n".join(part for part in (" ".join(words[:cut]), " ".join(words[cut:])) if part)
