"""docs/figures/scale: planning and tables against the number of cells, and the simulated cluster against its ideal."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anchored.report.figures import COLOURS

_OURS, _FLOOR, _OTHER = COLOURS["ewc"], "#888888", COLOURS["l2sp"]


def draw(found: dict[str, Any]) -> Figure:
    """Three panels: CPU seconds of planning, CPU seconds of tables, makespans."""
    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    planning, evaluation, cluster = figure.subplots(1, 3)
    plans = {"dry_run": ("snakemake --dry-run", _OURS), "job_start": ("start of one job", _OTHER), "bare": ("trivial jobs", _FLOOR)}
    _lines(planning, found.get("planning", []), plans)
    planning.set_title("planning", fontsize=9)
    _lines(evaluation, found.get("tables", []), {"evaluate": ("anchored evaluate", _OURS), "tables": ("anchored tables", _OTHER)})
    evaluation.set_title("tables from stored predictions", fontsize=9)
    _makespans(cluster, found.get("cluster", []))
    for axes in (planning, evaluation, cluster):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure


def _lines(axes: Axes, rows: list[dict[str, Any]], series: dict[str, tuple[str, str]]) -> None:
    for key, (label, colour) in series.items():
        cells, seconds = [row["cells"] for row in rows], [row[key]["cpu"] for row in rows]
        axes.plot(cells, seconds, color=colour, label=label, marker="o", markersize=3.5)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("cells, one a job", fontsize=8)
    axes.set_ylabel("CPU seconds", fontsize=8)
    axes.legend(fontsize=7.5, frameon=False, loc="upper left")


def _makespans(axes: Axes, rows: list[dict[str, Any]]) -> None:
    place = range(len(rows))
    axes.bar([at - 0.2 for at in place], [row["ideal_seconds"] / 60 for row in rows], width=0.4, color=_FLOOR, label="ideal")
    axes.bar([at + 0.2 for at in place], [row["measured_seconds"] / 60 for row in rows], width=0.4, color=_OURS, label="SLURM")
    axes.set_xticks(list(place), [f"{row['jobs']} jobs\n{row['gpus']} GPUs" for row in rows])
    # Room for the legend above the bars.
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])
    axes.set_ylabel("minutes, scaled down", fontsize=8)
    axes.set_title("the paper's plan as sleeps", fontsize=9)
    axes.legend(fontsize=7.5, frameon=False, loc="upper left")
