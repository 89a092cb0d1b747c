"""The few numbers of a study that two commits are compared by: `dvc metrics diff` and `dvc plots diff` read these files.

    results/tables/metrics.json     {experiment: {rule: {scope: {arm: {wga, average, adjusted}}}}}
    results/tables/strength.json    [{experiment, arm, strength, wga, sd}, ...], the points of the figure of that name

In percent, means over seeds. They are the tables' and the figure's own numbers, rounded so that the order in which a processor adds
does not show.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from anchored.evaluate.selection import find_rule, scopes
from anchored.evaluate.study import Experiment
from anchored.report.figure_data import Curve
from anchored.report.summary import METRICS, arm_means

_DECIMALS = 4


def headline(picks: pl.DataFrame, experiment: Experiment) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Rule -> scope -> arm -> accuracies of what the rule picked; arms without a pick are left out.

    Args:
        picks: the experiment's picks with test metrics (`selection.with_test_metrics`), all rules and scopes.
        experiment: its rules and arms.
    """
    return {
        rule.name: {scope: _arms(picks, experiment, rule.name, scope) for scope in scopes(experiment)}
        for rule in map(find_rule, experiment.rules)
    }


def strength_points(curves: Sequence[Curve], experiment: Experiment) -> list[dict[str, Any]]:
    """The points of an experiment's curves of worst-group accuracy against penalty strength, one dict each."""
    return [
        {"experiment": experiment.name, "arm": curve.arm, "strength": strength, "wga": _percent(mean), "sd": _percent(sd)}
        for curve in curves
        for strength, mean, sd in zip(curve.strengths, curve.means, curve.sds, strict=True)
    ]


def _arms(picks: pl.DataFrame, experiment: Experiment, rule: str, scope: str) -> dict[str, dict[str, float]]:
    own = picks.filter(pl.col("rule") == rule, pl.col("scope") == scope)
    found = {}
    for arm in experiment.arms:
        chosen = own.filter(pl.col("arm") == arm)
        if not chosen.is_empty():
            means = arm_means(chosen)
            found[arm] = {name: _percent(means[f"{name}_mean"]) for name in METRICS.values() if means[f"{name}_mean"] is not None}
    return found


def _percent(share: float) -> float:
    return round(100 * share, _DECIMALS)
