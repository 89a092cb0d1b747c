"""Which configuration and epoch an arm is judged by: selection rules as objects, and the check of grid edges.

    pick(arm, seed) = argmax over (configuration, epoch) of criterion(configuration, epoch)

A seed is one (backbone, replicate); each seed picks for itself, from the same candidates in every arm.

| rule | criterion | needs |
| --- | --- | --- |
| val-average | plain average on the validation split | class labels of the validation images |
| val-wga | worst-group accuracy on the validation split | their group labels too |
| oracle-test-wga | worst-group accuracy on the **test** split | the answer; an upper bound, never a result |

Ties are common (a group of 150 validation images knows 151 accuracies). The first configuration in the plan's order
wins, then the earliest epoch: no second criterion, because any other one would let a rule see more than its name says.
The number of candidates that reach the best value is reported, so that a reader sees how much the order decided.

An arm whose pick lies at the end of its grid might do better beyond it, and a comparison with it flatters the others:
one baseline that picked its lowest learning rate on five of six seeds took back .053 of a gain of .056 when it was
tuned further. So every hyper-parameter with two or more values in the grid is checked, and each pick at its lowest or
highest value is flagged. (Of two values each is an edge. Whether an edge is a natural limit, such as the number of
stages, cannot be known here.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from anchored.errors import ConfigError
from anchored.evaluate.study import Arm, Experiment, Hyper

TUNED = "tuned"
SAME_LR = "same-lr"

SEED = ("backbone", "replicate")
"""The columns that identify a seed."""


@dataclass(frozen=True)
class Rule:
    """A named criterion: a metric on a split."""

    name: str
    split: str
    metric: str
    description: str
    oracle: bool = False

    def pick(self, candidates: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
        """The best candidate of every seed.

        Args:
            candidates: rows of the metrics of one arm (all splits), of any seeds, epochs and configurations.
            order: the configurations of the arm in the plan's order; others are not considered.

        Returns:
            Columns backbone, replicate, cell, configuration, epoch, criterion, ties (how many candidates share the best
            value), sorted by seed.
        """
        rank = pl.col("configuration").replace_strict(list(order), list(range(len(order))), return_dtype=pl.Int64)
        judged = (
            candidates.filter(pl.col("split") == self.split, pl.col("configuration").is_in(list(order)))
            .with_columns(rank.alias("rank"), pl.col(self.metric).alias("criterion"))
            .filter(pl.col("criterion").is_not_null() & pl.col("criterion").is_not_nan())
        )
        return (
            judged.with_columns((pl.col("criterion") == pl.col("criterion").max()).sum().over(SEED).alias("ties"))
            .sort([*SEED, "criterion", "rank", "epoch"], descending=[False, False, True, False, False])
            .unique(subset=SEED, keep="first", maintain_order=True)
            .select(*SEED, "cell", "configuration", "epoch", "criterion", pl.col("ties").cast(pl.Int32))
        )


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("val-average", "val", "average", "validation average"),
        Rule("val-wga", "val", "worst_group", "validation worst-group accuracy"),
        Rule(
            "oracle-test-wga", "test", "worst_group", "test worst-group accuracy (oracle: sees the answer)", oracle=True
        ),
    )
}


def find_rule(name: str) -> Rule:
    """The rule called `name`.

    Raises:
        ConfigError: there is none; names those that exist.
    """
    if name not in RULES:
        raise ConfigError(f"plan: selection rule {name!r} does not exist.", f"choose from {', '.join(RULES)}.")
    return RULES[name]


def scopes(experiment: Experiment) -> tuple[str, ...]:
    """`tuned` always; `same-lr` where the plan names a reference learning rate."""
    return (TUNED,) if experiment.reference_lr is None else (TUNED, SAME_LR)


def in_scope(arm: Arm, scope: str, reference_lr: float | None) -> tuple[str, ...]:
    """The configurations of `arm` that compete in `scope`, in the plan's order.

    `same-lr` keeps those at the reference learning rate, and all of an arm that has no learning rate. It may be empty.
    """
    if scope == TUNED:
        return arm.configurations
    return tuple(name for name in arm.configurations if arm.hyper[name].get("lr", reference_lr) == reference_lr)


def has_learning_rate(arm: Arm) -> bool:
    """Whether any configuration of `arm` has a learning rate."""
    return any("lr" in hyper for hyper in arm.hyper.values())


def varied(grid: Sequence[Hyper]) -> dict[str, list[float]]:
    """The hyper-parameters with two or more values in `grid`, each with its sorted values."""
    keys = list(dict.fromkeys(key for hyper in grid for key in hyper))
    values = {key: sorted({hyper[key] for hyper in grid if key in hyper}) for key in keys}
    return {key: seen for key, seen in values.items() if len(seen) >= 2}


def edges(picked: Hyper, grid: Sequence[Hyper]) -> dict[str, str]:
    """For each hyper-parameter of `picked` at an end of `grid`: "low" or "high"."""
    ends = {key: (seen[0], seen[-1]) for key, seen in varied(grid).items() if key in picked}
    return {
        key: "low" if picked[key] == low else "high" for key, (low, high) in ends.items() if picked[key] in (low, high)
    }


def select(metrics: pl.DataFrame, experiment: Experiment, rule: Rule, scope: str) -> pl.DataFrame:
    """The picks of every arm and seed of one experiment, arms in the plan's order, with their edge flags as text."""
    parts = []
    for arm in experiment.arms.values():
        order = in_scope(arm, scope, experiment.reference_lr)
        rows = metrics.filter(pl.col("experiment") == experiment.name, pl.col("arm") == arm.name)
        picks = rule.pick(rows, order)
        grid = [arm.hyper[name] for name in order]
        flags = [edge_text(edges(arm.hyper[name], grid)) for name in picks["configuration"]]
        parts.append(picks.with_columns(pl.lit(arm.name).alias("arm"), pl.Series("edge", flags, dtype=pl.String)))
    labels = {"experiment": experiment.name, "rule": rule.name, "scope": scope}
    table = pl.concat(parts).with_columns(**{key: pl.lit(value) for key, value in labels.items()})
    return table.select(*labels, "arm", *SEED, "cell", "configuration", "epoch", "criterion", "ties", "edge")


def edge_text(found: Mapping[str, str]) -> str:
    """Edge flags as they stand in `selected.csv`: "lr low; strength high"."""
    return "; ".join(f"{key} {end}" for key, end in found.items())


def with_test_metrics(picks: pl.DataFrame, metrics: pl.DataFrame) -> pl.DataFrame:
    """`picks` with the test metrics and hyper-parameters of each picked (cell, epoch)."""
    skip = {"experiment", "dataset", "family", "seed", "split", "arm", "configuration", *SEED}
    test = metrics.filter(pl.col("split") == "test").select(pl.exclude(*skip))
    return picks.join(test, on=["cell", "epoch"], how="left", maintain_order="left", validate="m:1")
