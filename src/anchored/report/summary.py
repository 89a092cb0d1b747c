"""The numbers of a table: means over seeds of each arm's picks, joined with the bootstrap's differences. All unrounded.

One row an arm. Means and standard deviations (n - 1) run over seeds; differences and intervals come from
`results/comparisons.parquet`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from anchored.evaluate.selection import SAME_LR, TUNED, edges, in_scope, varied
from anchored.evaluate.study import Arm, Experiment

METRICS = {"worst_group": "wga", "average": "average", "adjusted": "adjusted"}
"""Columns of the metrics and how the tables' CSV files call them."""

DIFFERENCE_FIELDS = ("difference", "low", "high", "wins", "ties")


@dataclass(frozen=True)
class Selected:
    """What one arm's seeds picked.

    Attributes:
        configuration: the one picked most often (the first in the plan's order if several).
        count: by how many seeds.
        seeds: of how many.
        shown: the hyper-parameters that tell its configurations apart, in this scope.
        edges: (hyper-parameter, "low" or "high") to the number of seeds whose pick lies at that end.
    """

    configuration: str
    count: int
    seeds: int
    shown: list[str]
    edges: dict[tuple[str, str], int]


def selected(picks: pl.DataFrame, arm: Arm, order: Sequence[str]) -> Selected:
    """Summarises the picks of one arm in one scope, whose competing configurations are `order`."""
    counts = Counter(picks["configuration"].to_list())
    best = max(order, key=lambda name: (counts[name], -order.index(name)))
    grid = [arm.hyper[name] for name in order]
    shown = list(varied(grid)) or list(grid[0])
    found = Counter(end for name in picks["configuration"] for end in edges(arm.hyper[name], grid).items())
    return Selected(best, counts[best], len(picks), shown, dict(sorted(found.items())))


def summarise(picks: pl.DataFrame, comparisons: pl.DataFrame, experiment: Experiment, scope: str) -> pl.DataFrame:
    """The table of one rule and scope.

    Args:
        picks: picks with test metrics of one experiment, rule and scope.
        comparisons: differences to the baseline of the same experiment, rule and scope.
        experiment: its arms.
        scope: `tuned` or `same-lr`.

    Returns:
        arm, configurations, seeds, selected, selected_count, edges, <metric>_mean, <metric>_sd, then for every
        reference scope vs_<scope>_<metric>_<difference, low, high, wins, ties>; null where an arm is not compared with
        itself.
    """
    rows = []
    for arm in experiment.arms.values():
        own = picks.filter(pl.col("arm") == arm.name)
        order = in_scope(arm, scope, experiment.reference_lr)
        if own.is_empty():
            continue
        choice = selected(own, arm, order)
        row = {
            "arm": arm.name,
            "configurations": len(order),
            "seeds": choice.seeds,
            "selected": choice.configuration,
            "selected_count": choice.count,
            "edges": "; ".join(f"{key} {end} {count}/{choice.seeds}" for (key, end), count in choice.edges.items()),
        }
        row |= arm_means(own)
        for reference in reference_scopes(scope):
            row |= _differences(
                comparisons.filter(pl.col("arm") == arm.name, pl.col("reference_scope") == reference), reference
            )
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def arm_means(picks: pl.DataFrame) -> dict[str, Any]:
    """<metric>_mean and <metric>_sd over the seeds of one arm's picks; null where no seed has the metric."""
    return {
        f"{name}_{moment}": value
        for column, name in METRICS.items()
        for moment, value in (("mean", picks[column].mean()), ("sd", picks[column].std()))
    }


def reference_scopes(scope: str) -> tuple[str, ...]:
    """The scopes of the baseline that arms of `scope` are compared with."""
    return (SAME_LR, TUNED) if scope == SAME_LR else (TUNED,)


def contrasts(comparisons: pl.DataFrame) -> pl.DataFrame:
    """One row for every contrast and scope: the differences in every metric, unrounded."""
    keys = ["scope", "arm", "reference", "seeds"]
    table = comparisons.select(keys).unique(maintain_order=True)
    for column, name in METRICS.items():
        fields = [pl.col(field).alias(f"{name}_{field}") for field in DIFFERENCE_FIELDS]
        one = comparisons.filter(pl.col("statistic") == column).select(*keys, *fields)
        table = table.join(one, on=keys, how="left", maintain_order="left", validate="1:1")
    return table


def per_group(picks: pl.DataFrame, groups: int) -> pl.DataFrame:
    """Mean and sd over seeds of every group's accuracy, by (scope, arm), and which group is the worst on most seeds."""
    columns = [expression for group in range(groups) for expression in _moments(f"group_{group}")]
    worst = pl.col("worst_group_id")
    counted = [(worst == group).sum().cast(pl.Int32).alias(f"group_{group}_worst") for group in range(groups)]
    return picks.group_by("scope", "arm", maintain_order=True).agg(
        pl.len().cast(pl.Int32).alias("seeds"), *columns, *_moments("worst_group"), *counted
    )


def _moments(column: str) -> list[pl.Expr]:
    return [pl.col(column).mean().alias(f"{column}_mean"), pl.col(column).std().alias(f"{column}_sd")]


def _differences(rows: pl.DataFrame, reference: str) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for column, name in METRICS.items():
        found = rows.filter(pl.col("statistic") == column)
        for field in DIFFERENCE_FIELDS:
            values[f"vs_{reference}_{name}_{field}"] = None if found.is_empty() else found[field][0]
    return values
