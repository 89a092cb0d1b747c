"""The figures of FIMs: sorted entries, mass by layer, how alike FIMs are, and how many images are enough.

Drawn in the style of the report (`anchored.report.figures`), with the same bytes for the same numbers.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, PercentFormatter

from anchored.diagnostics.noise import TARGET, SplitHalf
from anchored.diagnostics.summary import Curve
from anchored.report.figures import COLOURS

PALETTE = tuple(COLOURS[arm] for arm in ("ewc", "linear-probe", "freeze", "l2sp", "ewc-shuffled"))
_MARKERS = "osD^v"


def spectrum_figure(curves: Mapping[str, Curve], *, title: str, by_depth: bool = False) -> Figure:
    """Sorted entries on two logarithmic axes, one line a curve.

    Args:
        curves: by label.
        title: what it shows.
        by_depth: labels are layers in the order of the network: colours run from dark (input) to light (output).
    """
    figure, axes = _blank(7.4 if by_depth else 6.6, max(3.8, 0.9 + 0.185 * len(curves)))
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, max(len(curves), 2)))
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(
            curve.shares, curve.values, label=name, linewidth=1.3 if by_depth else 1.7,
            color=shades[index] if by_depth else PALETTE[index % len(PALETTE)],
            linestyle=("-", "--")[index % 2] if by_depth else ("-", "--", "-.", ":")[index % 4],
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.axhline(1.0, color="#888888", linewidth=0.8, zorder=1)
    axes.set_xlabel("share of the entries of a layer, largest first" if by_depth else "share of the entries, largest first")
    axes.set_ylabel("F / mean of F")
    axes.set_title(title, fontsize=9)
    _legend_right(axes, fontsize=7.5 if len(curves) > 10 else 9)
    return figure


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
    side = 1.7 + 0.62 * len(names)
    figure, pair = _pair(2 * side + 0.6, side)
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


def _legend_right(axes: Axes, *, fontsize: float) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, fontsize=fontsize)
