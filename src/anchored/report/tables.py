"""The tables of an experiment, built from picks and comparisons: results, contrasts, accuracy by group.

For every rule: `tuned` (each arm picks from its whole grid) stands beside `same-lr` (all arms at the reference learning
rate), because either alone misleads: a low learning rate is an anchor of its own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from anchored.evaluate.compare import BASELINE, CONTRAST
from anchored.evaluate.groups import Groups
from anchored.evaluate.selection import SAME_LR, SEED, TUNED, Rule, in_scope
from anchored.evaluate.study import Experiment
from anchored.report import notes
from anchored.report.summary import contrasts, per_group, reference_scopes, selected, summarise
from anchored.report.table import Table
from anchored.report.text import MINUS, NOT_AVAILABLE, arm_name, hyper_text, mean_sd, number, points, rule_name, seeds_text

_UNITS = "differences in percentage points with their 95 % interval"


def results(
    picks: pl.DataFrame, comparisons: pl.DataFrame, *, experiment: Experiment, rule: Rule, scope: str, groups: Groups
) -> Table:
    """Every arm under one rule: what was picked, accuracies, and the difference to the baseline.

    Args:
        picks: the experiment's picks with test metrics (`selection.with_test_metrics`), all rules and scopes.
        comparisons: the experiment's comparisons, all rules and scopes.
        experiment: its arms.
        rule: the selection rule.
        scope: `tuned` or `same-lr`.
        groups: of the data set.
    """
    own = _of(picks, rule, scope)
    versus = _of(comparisons, rule, scope).filter(pl.col("kind") == BASELINE)
    values = summarise(own, versus, experiment, scope)
    columns = _result_columns(experiment, scope)
    rows = [
        tuple(write(row) for _, write in columns)
        for row in (_with_choice(row, own, experiment, scope) for row in values.iter_rows(named=True))
    ]
    flagged = [(row["arm"], row["edges"]) for row in values.iter_rows(named=True) if row["edges"]]
    where = "tuned" if scope == TUNED else f"same learning rate {number(experiment.reference_lr or 0.0)}"
    return Table(
        name=f"{experiment.name}-{rule.name}-{scope}",
        title=f"{experiment.title}: {where}, selected by {rule_name(rule.name)}",
        caption=f"Test accuracies in %, mean ± sd over {_seeds(own)}; WGA: accuracy of the worst group; {_UNITS}.",
        header=tuple(name for name, _ in columns),
        rows=tuple(rows),
        notes=(
            *notes.selection_notes(rule, groups),
            *notes.scope_notes(experiment, scope, values["arm"].to_list()),
            *notes.edge_notes(flagged, experiment, scope),
            *_common_notes(own, experiment, groups),
        ),
        values=values,
        left=1,
    )


def contrast_table(
    picks: pl.DataFrame, comparisons: pl.DataFrame, *, experiment: Experiment, rule: Rule, groups: Groups
) -> Table:
    """The plan's pairs of arms: the first minus the second, in both scopes. Arguments as for `results`."""
    own = picks.filter(pl.col("rule") == rule.name)
    values = contrasts(comparisons.filter(pl.col("rule") == rule.name, pl.col("kind") == CONTRAST))
    rows = [
        (
            f"{arm_name(row['arm'])} {MINUS} {arm_name(row['reference'])}",
            _scope_name(row["scope"], experiment),
            *(cell for name in ("wga", "average", "adjusted") for cell in (_points(row, name), _wins(row, name))),
        )
        for row in values.iter_rows(named=True)
    ]
    return Table(
        name=f"{experiment.name}-{rule.name}-contrasts",
        title=f"{experiment.title}: contrasts, selected by {rule_name(rule.name)}",
        caption=f"First arm minus second on the test split, mean over {_seeds(own)}; {_UNITS}.",
        header=("contrast", "scope", "WGA", "wins", "average", "wins", "adjusted average", "wins"),
        rows=tuple(rows),
        notes=(*notes.selection_notes(rule, groups), *_common_notes(own, experiment, groups)),
        values=values,
        left=2,
    )


def group_table(picks: pl.DataFrame, *, experiment: Experiment, rule: Rule, groups: Groups) -> Table:
    """Accuracy of every group under one rule: all arms tuned, then the baseline at the reference rate."""
    tuned = _of(picks, rule, TUNED)
    same = _of(picks, rule, SAME_LR).filter(pl.col("arm") == experiment.baseline)
    own = pl.concat([tuned, same])
    values = per_group(own, len(groups.names))
    rows = [
        (
            f"{arm_name(row['arm'])}, {_scope_name(row['scope'], experiment)}",
            *(_mean_sd(row, f"group_{group}") for group in range(len(groups.names))),
            _mean_sd(row, "worst_group"),
            _worst(row, groups),
        )
        for row in values.iter_rows(named=True)
    ]
    images = [int(own[f"n_group_{group}"][0]) for group in range(len(groups.names))]
    sizes = ", ".join(f"{name} {count}" for name, count in zip(groups.names, images, strict=True))
    return Table(
        name=f"{experiment.name}-per-group",
        title=f"{experiment.title}: accuracy by group, selected by {rule_name(rule.name)}",
        caption=f"Test accuracies in %, mean ± sd over {_seeds(own)}; worst group on: number of seeds.",
        header=("arm", *groups.names, "WGA", "worst group on"),
        rows=tuple(rows),
        notes=(
            *notes.selection_notes(rule, groups),
            f"Test images: {sizes}. WGA is the mean over seeds of each seed's minimum: at or below the lowest mean.",
            *_common_notes(own, experiment, groups, intervals=False),
        ),
        values=values,
    )


def _result_columns(experiment: Experiment, scope: str) -> list[tuple[str, Callable[[Mapping[str, Any]], str]]]:
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("arm", lambda row: arm_name(row["arm"])),
        ("configurations", lambda row: str(row["configurations"])),
        ("selected (seeds)", lambda row: row["choice"]),
        ("WGA", lambda row: _mean_sd(row, "wga")),
        ("average", lambda row: _mean_sd(row, "average")),
        ("adjusted average", lambda row: _mean_sd(row, "adjusted")),
    ]
    for reference in reference_scopes(scope):
        baseline = arm_name(experiment.baseline)
        against = f"tuned {baseline}" if reference == TUNED else f"{baseline} at {_scope_name(reference, experiment)}"
        prefix = f"vs_{reference}_"
        columns += [
            (f"WGA {MINUS} {against}", lambda row, p=prefix: _points(row, f"{p}wga")),  # type: ignore[misc]
            ("wins", lambda row, p=prefix: _wins(row, f"{p}wga")),  # type: ignore[misc]
        ]
    return [
        *columns,
        (f"average {MINUS} tuned {arm_name(experiment.baseline)}", lambda row: _points(row, f"vs_{TUNED}_average")),
        ("grid edge", lambda row: f"† {row['edges']}" if row["edges"] else ""),
    ]


def _with_choice(row: Mapping[str, Any], picks: pl.DataFrame, experiment: Experiment, scope: str) -> dict[str, Any]:
    arm = experiment.arms[row["arm"]]
    choice = selected(picks.filter(pl.col("arm") == arm.name), arm, in_scope(arm, scope, experiment.reference_lr))
    return {
        **row,
        "choice": f"{hyper_text(arm.hyper[choice.configuration], choice.shown)} ({choice.count}/{choice.seeds})",
    }


def _common_notes(own: pl.DataFrame, experiment: Experiment, groups: Groups, *, intervals: bool = True) -> list[str]:
    common = [*notes.seed_notes(own)]
    if intervals:
        common += [notes.interval_note(experiment.draws), notes.average_note(groups)]
    return [*common, *notes.sanity_notes(own), *([experiment.note] if experiment.note else []), *notes.origin_notes(groups)]


def _scope_name(scope: str, experiment: Experiment) -> str:
    return "tuned" if scope == TUNED else f"lr {number(experiment.reference_lr or 0.0)}"


def _of(frame: pl.DataFrame, rule: Rule, scope: str) -> pl.DataFrame:
    return frame.filter(pl.col("rule") == rule.name, pl.col("scope") == scope)


def _seeds(picks: pl.DataFrame) -> str:
    return seeds_text(picks.select(SEED).n_unique())


def _mean_sd(row: Mapping[str, Any], name: str) -> str:
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    return NOT_AVAILABLE if mean is None else mean_sd(mean, float("nan") if sd is None else sd)


def _points(row: Mapping[str, Any], name: str) -> str:
    """Empty where the arm is the very thing it would be compared with."""
    if row[f"{name}_difference"] is None:
        return ""
    return points(row[f"{name}_difference"], row[f"{name}_low"], row[f"{name}_high"])


def _wins(row: Mapping[str, Any], name: str) -> str:
    return "" if row[f"{name}_wins"] is None else f"{row[f'{name}_wins']}/{row['seeds']}"


def _worst(row: Mapping[str, Any], groups: Groups) -> str:
    counts = [row[f"group_{group}_worst"] for group in range(len(groups.names))]
    most = counts.index(max(counts))
    return f"{groups.names[most]} ({counts[most]}/{row['seeds']})"
