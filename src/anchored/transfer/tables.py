"""The study in words and tables: summary.md and summary.csv."""

import math
from collections.abc import Sequence

import polars as pl
from polars import selectors

from anchored.report.table import Table, markdown
from anchored.report.text import NOT_AVAILABLE, fixed, number, percent
from anchored.transfer.figures import NAMES
from anchored.transfer.settings import ANCHORS, CONTROLS, EWC_ARMS, FREE, FROZEN
from anchored.transfer.study import PRETRAINED, RANDOM, STEP
from anchored.transfer.summary import ARMS, STATISTICS, agreement, excess, seeds_without_gain
from anchored.transfer.target import PHOTOGRAPHS

_STEPS = "random steps"
_HEADINGS = {
    "ssl_mean": "SSL loss rise, mean over gains",
    "ssl_at_half": "at half of the gain",
    "knn_mean": "k-NN drop",
    "worst_mean": "k-NN worst-group drop",
    "gain_kept": "gain kept at 90 % recovery",
}


def summary_csv(table: pl.DataFrame, differences: pl.DataFrame) -> str:
    """One line for every arm and statistic, then one for every difference; numbers to twelve decimals."""
    levels = (
        table.unpivot(STATISTICS, index=["fim", "replicate", "arm"], variable_name="statistic", value_name="value")
        .filter(pl.col("value").is_finite())
        .group_by("arm", "statistic", maintain_order=True)
        .agg(pl.col("value").mean().alias("value"), pl.col("value").std().alias("sd"), pl.len().cast(pl.Int32).alias("seeds"))
    )
    both = pl.concat([levels, differences.rename({"difference": "value"})], how="diagonal")
    columns = ("fim", "arm", "reference", "statistic", "value", "sd", "low", "high", "better", "seeds")
    return both.select(*(name for name in columns if name in both.columns)).with_columns(selectors.float().round(12)).write_csv()


def summary_markdown(cells: pl.DataFrame, table: pl.DataFrame, differences: pl.DataFrame, *, title: str) -> str:
    """Reference values, what each arm forgets, the differences, and how well the Fisher predicts the drift."""
    seeds = table.select("fim", "replicate").n_unique()
    parts = [
        _references(cells, title),
        _levels(table, seeds),
        _differences(differences, "ssl_mean", "EWC minus control: rise of the SSL loss, mean over gains (nats)", 1, 3),
        _differences(differences, "knn_mean", "EWC minus control: drop of the k-NN accuracy, mean over gains (points)", 100, 2),
        _differences(differences, "gain_kept", "EWC minus control: target gain kept at 90 % recovery (% of the gain)", 100, 1),
        _by_strength(cells),
        _theory(cells),
    ]
    if left_out := seeds_without_gain(cells):
        parts.append(f"{left_out} seeds are left out: free fine-tuning gained no target accuracy over the frozen backbone.\n")
    return "\n".join(parts)


def _references(cells: pl.DataFrame, title: str) -> str:
    rows = []
    for arm, name in ((PRETRAINED, "pre-trained"), (FROZEN, "frozen, head trained"), (FREE, "free"), (RANDOM, "random weights")):
        own = cells.filter(pl.col("arm") == arm)
        accuracy = own["accuracy"].mean()
        rows.append(
            (name, percent(_number(accuracy)), fixed(_number(own["ssl_loss"].mean()), 3), percent(_number(own["knn"].mean())),
             percent(_number(own["knn_worst"].mean())))
        )  # fmt: skip
    return markdown(
        _table(
            title,
            "Means over seeds and FIMs. Target: which of "
            f"{len(PHOTOGRAPHS)} photographs is a crop from (chance {percent(1 / len(PHOTOGRAPHS))} %).",
            ("network", "target accuracy (%)", "SSL loss (nats)", "k-NN (%)", "k-NN worst group (%)"),
            rows,
            (),
        )
    ).replace("\n\n\n", "\n\n")


def _levels(table: pl.DataFrame, seeds: int) -> str:
    rows = []
    for arm in ARMS:
        own = table.filter(pl.col("arm") == arm)
        values = {name: own[name].filter(own[name].is_finite()) for name in STATISTICS}
        means = {name: _number(column.mean()) for name, column in values.items()}
        rows.append(
            (
                NAMES[arm],
                fixed(means["ssl_mean"], 3),
                fixed(means["ssl_at_half"], 3),
                fixed(100 * means["knn_mean"], 2),
                fixed(100 * means["worst_mean"], 2),
                fixed(100 * means["gain_kept"], 1),
            )
        )
    return markdown(
        _table(
            "What an arm forgets at matched target accuracy",
            f"Means over {seeds} seeds. Loss in nats, drops in points, gain in % of what free fine-tuning gains over a frozen "
            "backbone. Lower is better but for the last column.",
            ("arm", *_HEADINGS.values()),
            rows,
            (
                "`EWC (F as it is)` is both conditionings `none` and `normalise`: they differ by the unit of the strength alone.",
                "Each arm's frontier takes the best of its cells, which flatters all arms alike: they have the same number.",
            ),
        )
    )


def _differences(differences: pl.DataFrame, statistic: str, title: str, unit: float, decimals: int) -> str:
    fims = differences["fim"].drop_nulls().unique(maintain_order=True).to_list()
    rows = []
    for arm in EWC_ARMS:
        for fim in (None, *fims):
            cells = [NAMES[arm], fim or "all"]
            for reference in CONTROLS:
                found = differences.filter(
                    pl.col("fim").eq_missing(pl.lit(fim, pl.String)), pl.col("arm") == arm, pl.col("reference") == reference,
                    pl.col("statistic") == statistic,
                ).to_dicts()  # fmt: skip
                cells.append(_interval(found[0], unit, decimals) if found else NOT_AVAILABLE)
            rows.append(tuple(cells))
    better = "Positive is better for EWC" if statistic == "gain_kept" else "Negative is better for EWC"
    return markdown(
        _table(
            title,
            f"Paired by seed, 95 % bootstrap interval over seeds, and on how many seeds EWC is better. {better}.",
            ("arm", "FIM", *(f"minus {NAMES[name]}" for name in CONTROLS)),
            rows,
            ("Seeds of one checkpoint share its chance: believe a difference where FIMs agree. Few seeds make intervals narrow.",),
            left=2,
        )
    )


def _theory(cells: pl.DataFrame) -> str:
    rows = []
    groups = [(NAMES[arm], cells.filter(pl.col("arm") == arm)) for arm in ARMS]
    every = cells.filter(pl.col("replicate").is_not_null())
    groups = [("all arms", every), (_STEPS, cells.filter(pl.col("arm") == STEP)), *groups]
    kinds = (("full", "½ δᵀGδ, whole matrix, computed for each cell"), ("diagonal", "½ Σ F δ², the stored diagonal"))
    for kind, name in kinds:
        for arm, group in groups[: None if kind == "diagonal" else 2]:
            found = agreement(group, kind)
            ratio = f"{_short(found.ratio)} [{_short(found.low)}, {_short(found.high)}]"
            # Random steps are all of one length: there is nothing to correlate.
            correlation = NOT_AVAILABLE if arm == _STEPS else fixed(found.correlation, 3)
            rows.append((name, arm, str(found.cells), correlation, ratio))
    return markdown(
        _table(
            "Does the Fisher predict the drift?",
            "Measured drift, KL(pre-trained || fine-tuned) on held-out views, against its second-order prediction, over cells "
            "that drifted by less than a nat.",
            ("prediction", "cells of", "cells", "correlation of logs", "measured / predicted, median [5 %, 95 %]"),
            rows,
            (
                "F is the one that was stored: its scale is that of its estimator, which random steps measure, not that of G.",
                "Along a random step the entries off the diagonal cancel; along the way of a training they need not.",
            ),
        )
    )


def _by_strength(cells: pl.DataFrame) -> str:
    """The curves by strength, seeds averaged: what is left of the damage, and of the gain."""
    lost = excess(cells)
    free, frozen = (lost.filter(pl.col("arm") == arm) for arm in (FREE, FROZEN))
    rise, floor = _number(free["ssl_rise"].mean()), _number(frozen["accuracy"].mean())
    gain = _number(free["accuracy"].mean()) - floor
    strengths = sorted(lost["strength"].drop_nulls().unique())
    rows = []
    for arm in ANCHORS:
        parts = [NAMES[arm]]
        for strength in strengths:
            own = lost.filter(pl.col("arm") == arm, pl.col("strength") == strength)
            left = _share(_number(own["ssl_rise"].mean()), rise)
            parts.append(f"{left} / {_share(_number(own['accuracy'].mean()) - floor, gain)}")
        rows.append(tuple(parts))
    return markdown(
        _table(
            "By strength",
            "Rise of the SSL loss / gain of target accuracy, means over seeds in % of those of free fine-tuning.",
            ("arm", *(f"λ {number(strength)}" for strength in strengths)),
            rows,
            ("Every F has mean 1. One λ holds different arms at different points: compare arms at the same gain.",),
        )
    )


def _share(value: float, whole: float) -> str:
    return fixed(100 * value / whole, 0) if whole else NOT_AVAILABLE


def _table(
    title: str, caption: str, header: Sequence[str], rows: Sequence[tuple[str, ...]], notes: tuple[str, ...], left: int = 1
) -> Table:
    return Table("", title, caption, tuple(header), tuple(rows), notes, pl.DataFrame(), left)


def _interval(row: dict, unit: float, decimals: int) -> str:
    value, low, high = (fixed(unit * row[name], decimals, sign=True) for name in ("difference", "low", "high"))
    return f"{value} [{low}, {high}], {row['better']}/{row['seeds']}"


def _short(value: float) -> str:
    return NOT_AVAILABLE if math.isnan(value) else f"{value:.3g}"


def _number(value: object) -> float:
    return float("nan") if value is None else float(value)  # type: ignore[arg-type]
