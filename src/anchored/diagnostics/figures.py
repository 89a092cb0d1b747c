"""The figures of FIMs: sorted entries, mass by layer, how alike FIMs are, and how many images are enough.

Drawn in the style of the report (`anchored.report.figures`), with the same bytes for the same numbers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, PercentFormatter

from anchored.diagnostics.noise import TARGET, SplitHalf
from anchored.diagnostics.summary import Curve, Summary
from anchored.report.figures import COLOURS

PALETTE = tuple(COLOURS[arm] for arm in ("ewc", "linear-probe", "freeze", "l2sp", "ewc-shuffled"))
_MARKERS = "osD^v"


def spectrum_figure(curves: Mapping[str, Curve], *, title: str) -> Figure:
    """Sorted entries of several FIMs on two logarithmic axes."""
    figure, axes = _blank(6.6, 3.8)
    _draw_curves(axes, curves)
    axes.set_title(title, fontsize=9)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    return figure


def layers_figure(summary: Summary, *, title: str) -> Figure:
    """Left: sorted entries under each conditioning. Right: the entries of every layer.

    A row shows the non-zero entries of a layer: the thin line runs from the 5 % to the 95 % quantile, the thick one holds the
    middle half, the dot is the median, the tick the largest entry.
    """
    figure, (left, right) = _pair(10.4, max(3.9, 1.0 + 0.185 * len(summary.layers)))
    _draw_curves(left, summary.spectrum)
    left.legend(loc="lower left")
    left.set_title("all entries, by conditioning", fontsize=9)
    for row, found in enumerate(summary.layers.values()):
        if found:
            q05, q25, q50, q75, q95, high = found
            right.plot([q05, q95], [row, row], color=PALETTE[0], linewidth=1.0)
            right.plot([q25, q75], [row, row], color=PALETTE[0], linewidth=4.2, alpha=0.55, solid_capstyle="butt")
            right.plot([q50], [row], color=PALETTE[0], marker="o", markersize=3.6, linestyle="none")
            right.plot([high], [row], color=PALETTE[0], marker="|", markersize=6.5, linestyle="none")
    right.set_xscale("log")
    right.axvline(1.0, color="#888888", linewidth=0.8, zorder=1)
    right.set_yticks(range(len(summary.layers)), list(summary.layers), fontsize=7.5)
    right.set_ylim(len(summary.layers) - 0.4, -0.6)
    right.grid(visible=False, axis="y")
    right.set_xlabel("F / mean of F")
    right.set_title("by layer: 5-95 %, middle half, median, maximum", fontsize=9)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


def _draw_curves(axes: Axes, curves: Mapping[str, Curve]) -> None:
    for index, (name, curve) in enumerate(curves.items()):
        style = ("-", "--", "-.", ":")[index % 4]
        axes.plot(curve.shares, curve.values, label=name, linewidth=1.7, color=PALETTE[index % len(PALETTE)], linestyle=style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.axhline(1.0, color="#888888", linewidth=0.8, zorder=1)
    axes.set_xlabel("share of the entries, largest first")
    axes.set_ylabel("F / mean of F")


def split_half_figure(found: Mapping[str, SplitHalf], *, title: str) -> Figure:
    """Left: noise of the layer means against images, with the law and the 5 % line. Right: agreement of entries of two halves."""
    figure, (left, right) = _pair(9.6, 3.6)
    for index, (name, split) in enumerate(found.items()):
        colour, marker = PALETTE[index % len(PALETTE)], _MARKERS[index % len(_MARKERS)]
        sizes = np.array([half.images for half in split.halves])
        left.plot(sizes, [half.noise for half in split.halves], color=colour, marker=marker, linestyle="none", label=name)
        reach = np.geomspace(sizes[0], max(split.enough, split.images) * 1.15, 60)
        left.plot(reach, split.sigma / np.sqrt(reach), color=colour, linewidth=1.3)
        left.plot([split.enough], [TARGET], color=colour, marker="x", markersize=7, markeredgewidth=1.8, linestyle="none")
        right.plot(sizes, [half.rank for half in split.halves], color=colour, marker=marker, linewidth=1.5)
        right.plot(sizes, [half.overlap for half in split.halves], color=colour, marker=marker, linewidth=1.2, linestyle="--")
        right.plot(sizes, [half.difference for half in split.halves], color=colour, marker=marker, linewidth=1.2, linestyle=":")
    left.axhline(TARGET, color="#888888", linewidth=0.9, linestyle="--")
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]))
    left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.yaxis.set_minor_formatter(NullFormatter())
    left.set_ylabel("noise of the means of tensors")
    left.set_title("points: halves; lines: sigma / sqrt(n); crosses: 5 %", fontsize=9)
    left.legend(loc="upper right")
    right.set_xscale("log", base=2)
    right.set_ylim(0, 1)
    right.set_ylabel("n images against n others")
    right.set_title("entries of F", fontsize=9)
    keys = [
        Line2D([], [], color="#444444", linestyle="-", label="rank correlation"),
        Line2D([], [], color="#444444", linestyle="--", label="overlap of the top 1 %"),
        Line2D([], [], color="#444444", linestyle=":", label="median relative difference"),
    ]
    right.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    for axes in (left, right):
        axes.set_xlabel("images n")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


def correlation_figure(names: Sequence[str], overall: np.ndarray, within: np.ndarray, *, title: str) -> Figure:
    """Two matrices of rank correlations: over all entries, and the median over tensors.

    Args:
        names: of the FIMs.
        overall: (n, n), nan where two FIMs have different parameters.
        within: (n, n), the same.
        title: what it shows.
    """
    longest = 0.07 * max(map(len, names))
    side = 1.0 + 0.62 * len(names)
    figure, pair = _pair(2 * (side + longest) + 0.9, side + 0.5 * longest + 0.4)
    for axes, matrix, text in zip(pair, (overall, within), ("all entries", "within a tensor (median)"), strict=True):
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        for (row, column), value in np.ndenumerate(matrix):
            shown = "n/a" if np.isnan(value) else f"{value:.2f}"
            axes.text(column, row, shown, ha="center", va="center", fontsize=8, color="white" if abs(value) > 0.7 else "black")
        axes.set_xticks(range(len(names)), list(names), rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), list(names))
        axes.grid(visible=False)
        axes.set_title(text, fontsize=9)
    figure.colorbar(image, ax=list(pair), shrink=0.85, label="rank correlation")
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure


def _percent(value: float, _: int) -> str:
    return f"{100 * value:.6g} %"


def _blank(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _pair(width: float, height: float) -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    return figure, (left, right)
