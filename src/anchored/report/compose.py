"""What the report shows of an experiment: which tables, which figures, in which order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.figure import Figure

from anchored.evaluate.groups import Groups
from anchored.evaluate.selection import SAME_LR, SEED, TUNED, Rule, find_rule, scopes, select, with_test_metrics
from anchored.evaluate.study import Experiment
from anchored.report import figures, tables
from anchored.report.figure_data import fisher_mass, strength_curves
from anchored.report.summary import per_group
from anchored.report.table import Table
from anchored.report.text import arm_name, number, rule_name, seeds_text

FIGURE_RULE = "val-wga"
"""The rule behind figures and the table by group; an experiment without it uses its first rule."""

Fishers = Mapping[str, Mapping[str, npt.NDArray[np.floating]]]


@dataclass(frozen=True)
class Drawable:
    """A figure that is still to be drawn: its file stem, its caption, and the function that draws it."""

    name: str
    caption: str
    make: Callable[[], Figure]


def figure_rule(experiment: Experiment) -> Rule:
    """The rule that figures and the table by group are made with."""
    return find_rule(FIGURE_RULE if FIGURE_RULE in experiment.rules else experiment.rules[0])


def picks_of(metrics: pl.DataFrame, experiment: Experiment) -> pl.DataFrame:
    """The picks of every rule and scope, with their test metrics."""
    parts = [
        select(metrics, experiment, find_rule(rule), scope) for rule in experiment.rules for scope in scopes(experiment)
    ]
    return with_test_metrics(pl.concat(parts), metrics)


def tables_of(picks: pl.DataFrame, comparisons: pl.DataFrame, experiment: Experiment, groups: Groups) -> list[Table]:
    """For every rule the tables of both scopes and the contrasts; then accuracy by group."""
    made = []
    for rule in map(find_rule, experiment.rules):
        for scope in scopes(experiment):
            made.append(
                tables.results(picks, comparisons, experiment=experiment, rule=rule, scope=scope, groups=groups)
            )
        if experiment.contrasts:
            made.append(tables.contrast_table(picks, comparisons, experiment=experiment, rule=rule, groups=groups))
    return [*made, tables.group_table(picks, experiment=experiment, rule=figure_rule(experiment), groups=groups)]


def figures_of(
    picks: pl.DataFrame, metrics: pl.DataFrame, fishers: Fishers, *, experiment: Experiment, groups: Groups
) -> list[Drawable]:
    """Accuracy against strength (where an arm has one), accuracy by group, Fisher mass (where there is a FIM)."""
    rule = figure_rule(experiment)
    own = picks.filter(pl.col("rule") == rule.name)
    found = [_by_group(own, experiment, groups, rule), *_fisher(fishers, experiment)]
    strength = _strength(own, metrics, experiment, rule)
    return found if strength is None else [strength, *found]


def _strength(own: pl.DataFrame, metrics: pl.DataFrame, experiment: Experiment, rule: Rule) -> Drawable | None:
    curves = strength_curves(metrics, experiment, rule)
    if not curves:
        return None
    seeds, rate, baseline = _seeds(own), _rate(experiment), experiment.baseline
    without = [arm for arm in experiment.arms if arm not in {curve.arm for curve in curves}]
    lines = [(arm, TUNED, f"{arm_name(arm)}, tuned") for arm in without]
    if rate:
        lines.append((baseline, SAME_LR, f"{arm_name(baseline)}, {rate}"))
    levels = figures.levels_of(own, lines)
    return Drawable(
        f"{experiment.name}-strength",
        f"{experiment.title}: worst-group accuracy against penalty strength{f' at {rate}' if rate else ''}, mean and "
        f"sd over {seeds_text(seeds)}. Lines: arms without a strength; tuned ones are picked by {rule_name(rule.name)}.",
        partial(figures.strength_figure, curves, levels, title=experiment.title, seeds=seeds),
    )


def _by_group(own: pl.DataFrame, experiment: Experiment, groups: Groups, rule: Rule) -> Drawable:
    baseline, seeds = pl.col("arm") == experiment.baseline, _seeds(own)
    chosen = pl.concat([own.filter(baseline, pl.col("scope") == SAME_LR), own.filter(pl.col("scope") == TUNED)])
    bars = []
    for row in per_group(chosen, len(groups.names)).iter_rows(named=True):
        same = row["scope"] == SAME_LR
        known = [f"group_{group}" for group in range(len(groups.names))]
        bars.append(
            figures.Bars(
                row["arm"],
                f"{arm_name(row['arm'])}, {_rate(experiment) if same else 'tuned'}",
                tuple(float("nan") if row[f"{group}_mean"] is None else row[f"{group}_mean"] for group in known),
                tuple(row[f"{group}_sd"] or 0.0 for group in known),
                hatched=same,
            )
        )
    return Drawable(
        f"{experiment.name}-per-group",
        f"{experiment.title}: accuracy by group, picked by {rule_name(rule.name)}, mean and sd over {seeds_text(seeds)}.",
        partial(figures.group_figure, bars, groups.names, title=experiment.title, seeds=seeds),
    )


def _fisher(fishers: Fishers, experiment: Experiment) -> list[Drawable]:
    return [
        Drawable(
            f"{experiment.name}-fisher" + (f"-{place}" if place > 1 else ""),
            f"{experiment.title}: share of the Fisher's trace by layer ({', '.join(mass.traces)}) against the share of "
            "parameters. Raw FIM, before conditioning.",
            partial(figures.fisher_figure, mass, title=f"{experiment.title}\nwhere the diagonal Fisher lies"),
        )
        for place, mass in enumerate(fisher_mass(fishers), start=1)
    ]


def _rate(experiment: Experiment) -> str:
    return "" if experiment.reference_lr is None else f"lr {number(experiment.reference_lr)}"


def _seeds(picks: pl.DataFrame) -> int:
    return picks.select(SEED).n_unique()
