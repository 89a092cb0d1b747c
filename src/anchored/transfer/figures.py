"""The figure of a study: both tasks against each other, the price at matched accuracy, and the Fisher's own prediction."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from anchored.report.figures import COLOURS
from anchored.transfer.settings import FREE, FROZEN, LOW_RATE
from anchored.transfer.study import PRETRAINED, RANDOM, STEP
from anchored.transfer.summary import ARMS, LEAST_DRIFT, mean_frontiers

NAMES: Mapping[str, str] = {
    "ewc": "EWC (F as it is)",
    "ewc-floor": "EWC, floor 0.1",
    "ewc-clip": "EWC, clip 0.99",
    "ewc-layer-mean": "EWC, layer mean",
    "l2sp": "L2-SP",
    "ewc-shuffled": "EWC, shuffled F",
    LOW_RATE: "low learning rate",
}
_STYLES: Mapping[str, tuple[str, str, str]] = {
    "ewc": (COLOURS["ewc"], "o", "-"),
    "ewc-floor": ("#56B4E9", "v", "-"),
    "ewc-clip": ("#004C73", "P", "-"),
    "ewc-layer-mean": (COLOURS["freeze"], "D", "-"),
    "l2sp": (COLOURS["l2sp"], "^", "--"),
    "ewc-shuffled": (COLOURS["ewc-shuffled"], "s", "--"),
    LOW_RATE: ("#777777", "x", ":"),
}


def transfer_figure(cells: pl.DataFrame) -> Figure:
    """Four panels; `cells` of one or more FIMs, seeds averaged."""
    figure = Figure(figsize=(10.2, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _two_tasks(axes[0, 0], cells, "ssl_loss", 1.0, "SSL loss on held-out bank images (nats)")
    axes[0, 0].set_title("What is left of the SSL task (lower is better)", fontsize=9)
    _two_tasks(axes[0, 1], cells, "knn", 100.0, "k-NN accuracy on the SSL domain (%)")
    axes[0, 1].set_title("What is left of its features (higher is better)", fontsize=9)
    _prices(axes[1, 0], cells)
    _predictions(axes[1, 1], cells)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8, handlelength=2.6)
    return figure


def _two_tasks(axes: Axes, cells: pl.DataFrame, measure: str, unit: float, label: str) -> None:
    """Mean over seeds of target accuracy and `measure`, a marker for each grid point, from free to frozen."""
    for arm in ARMS:
        own = cells.filter(pl.col("arm").is_in([arm, FREE, FROZEN])).with_columns(_place(arm))
        means = own.group_by("place").agg(pl.col("accuracy").mean(), pl.col(measure).mean()).sort("place")
        colour, marker, line = _STYLES[arm]
        axes.plot(
            100 * means["accuracy"].to_numpy(), unit * means[measure].to_numpy(), color=colour, marker=marker, linestyle=line,
            markersize=4, linewidth=1.3, label=NAMES[arm],
        )  # fmt: skip
    pretrained, random = (unit * cells.filter(pl.col("arm") == arm)[measure].to_numpy().mean() for arm in (PRETRAINED, RANDOM))
    axes.axhline(pretrained, color="#000000", linestyle=(0, (6, 2)), linewidth=1.0, zorder=0, label="pre-trained")
    # Not a line: it lies so far from the curves that it would flatten them.
    axes.text(0.02, 0.5, f"random weights: {random:.{1 if unit > 1 else 2}f}", transform=axes.transAxes, fontsize=8)
    axes.set_xlabel("accuracy on the unrelated target, test (%)")
    axes.set_ylabel(label)


def _place(arm: str) -> pl.Expr:
    """Order of a cell on its arm's path from free to frozen."""
    order = -pl.col("lr") if arm == LOW_RATE else pl.col("strength")
    ends = pl.when(pl.col("arm") == FREE).then(float("-inf")).when(pl.col("arm") == FROZEN).then(float("inf"))
    return ends.otherwise(order).alias("place")


def _prices(axes: Axes, cells: pl.DataFrame) -> None:
    """Frontiers: the rise of the SSL loss at matched gain, mean over seeds and its standard error."""
    gains = np.linspace(0, 1, 41)
    for arm, rows in mean_frontiers(cells, "ssl_rise", gains.tolist()).items():
        if not len(rows):
            continue
        colour, _, line = _STYLES[arm]
        mean = rows.mean(axis=0)
        axes.plot(100 * gains, mean, color=colour, linestyle=line, linewidth=1.5)
        if len(rows) > 1:
            error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
            axes.fill_between(100 * gains, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlim(0, 100)
    axes.set_xlabel("target accuracy gained, frozen = 0, free = 100 (%)")
    axes.set_ylabel("rise of the SSL loss (nats)")
    axes.set_title("The price of target accuracy: frontier, mean and standard error", fontsize=9)


def _predictions(axes: Axes, cells: pl.DataFrame) -> None:
    """Measured drift of the predictions against both second-order predictions."""
    moved = cells.filter(pl.col("drift") > LEAST_DRIFT, pl.col("arm") != RANDOM)
    full = moved.filter(pl.col("full") > 0)
    axes.plot(
        full["full"].to_numpy(), full["drift"].to_numpy(), linestyle="none", marker=".", markersize=3, color="#bbbbbb",
        label="½ δᵀGδ, the whole matrix (all arms)", zorder=1,
    )  # fmt: skip
    for arm in ARMS:
        own = moved.filter(pl.col("arm") == arm, pl.col("diagonal") > 0)
        colour, marker, _ = _STYLES[arm]
        axes.plot(
            own["diagonal"].to_numpy(), own["drift"].to_numpy(), linestyle="none", marker=marker, markersize=3, color=colour,
            alpha=0.7, zorder=2,
        )  # fmt: skip
    steps = moved.filter(pl.col("arm") == STEP)
    axes.plot(
        steps["diagonal"].to_numpy(), steps["drift"].to_numpy(), linestyle="none", marker="*", markersize=8, color="#000000",
        label="½ Σ F δ², random steps", zorder=3,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.axline((1e-3, 1e-3), (1, 1), color="#000000", linewidth=0.8)
    axes.set_xlabel("predicted (nats); colours: ½ Σ F δ², the stored diagonal")
    axes.set_ylabel("measured: KL(pre-trained ‖ fine-tuned) (nats)")
    axes.set_title("Does the Fisher predict the drift? (line: equal)", fontsize=9)
    axes.legend(loc="lower right", fontsize=8)
