"""Selection rules on hand-made records: best, ties, oracle, grid edges, scopes."""

import polars as pl
import pytest
from synthetic_study import make_plan

from anchored.errors import ConfigError
from anchored.evaluate.selection import SAME_LR, TUNED, edges, find_rule, in_scope, scopes, select
from anchored.evaluate.study import Arm, Experiment, read_study

ORDER = ("low", "middle", "high")
HYPER = {"low": {"lr": 1e-4}, "middle": {"lr": 1e-3}, "high": {"lr": 1e-2}}


def records(*rows: tuple[str, int, int, float, float, float]) -> pl.DataFrame:
    """(configuration, replicate, epoch, val average, val WGA, test WGA) as rows of metrics."""
    parts = []
    for configuration, replicate, epoch, average, val, test in rows:
        common = {"experiment": "e", "arm": "erm", "backbone": "b", "replicate": replicate,
                  "configuration": configuration, "cell": f"{configuration}-{replicate}", "epoch": epoch}  # fmt: skip
        parts += [
            {**common, "split": "val", "average": average, "worst_group": val},
            {**common, "split": "test", "average": 0.5, "worst_group": test},
        ]
    return pl.DataFrame(parts)


def picked(frame: pl.DataFrame, rule: str, order: tuple[str, ...] = ORDER) -> list[tuple[str, int, int]]:
    return find_rule(rule).pick(frame, order).select("configuration", "epoch", "ties").rows()


def test_each_rule_follows_its_own_criterion() -> None:
    frame = records(("low", 0, 1, 0.9, 0.1, 0.2), ("middle", 0, 1, 0.5, 0.8, 0.3), ("high", 0, 1, 0.1, 0.2, 0.9))
    assert picked(frame, "val-average") == [("low", 1, 1)]
    assert picked(frame, "val-wga") == [("middle", 1, 1)]
    assert picked(frame, "oracle-test-wga") == [("high", 1, 1)]


def test_only_the_oracle_reads_the_test_split() -> None:
    """Swapping the test results must not move any honest pick."""
    frame = records(("low", 0, 1, 0.6, 0.5, 0.1), ("middle", 0, 1, 0.5, 0.4, 0.9))
    other = pl.when(pl.col("split") == "test").then(1 - pl.col("worst_group")).otherwise("worst_group")
    swapped = frame.with_columns(worst_group=other)
    for rule in ("val-average", "val-wga"):
        assert not find_rule(rule).oracle
        assert picked(frame, rule) == picked(swapped, rule)
    assert find_rule("oracle-test-wga").oracle
    assert picked(frame, "oracle-test-wga") != picked(swapped, "oracle-test-wga")


def test_every_seed_picks_for_itself() -> None:
    frame = records(
        ("low", 0, 1, 0, 0.5, 0), ("high", 0, 1, 0, 0.4, 0), ("low", 1, 1, 0, 0.3, 0), ("high", 1, 1, 0, 0.6, 0)
    )
    assert [name for name, _, _ in picked(frame, "val-wga")] == ["low", "high"]


def test_ties_go_to_the_plans_order_then_the_earliest_epoch() -> None:
    """The order of rows, of names or of files must not decide."""
    rows = [
        ("high", 0, 1, 0, 0.5, 0.9),
        ("middle", 0, 3, 0, 0.5, 0),
        ("middle", 0, 2, 0, 0.5, 0),
        ("low", 0, 1, 0, 0.4, 0),
    ]
    for shift in range(len(rows)):
        frame = records(*rows[shift:], *rows[:shift])
        assert picked(frame, "val-wga") == [("middle", 2, 3)]
        assert picked(frame, "val-wga", ("high", "middle", "low")) == [("high", 1, 3)]


def test_edges_are_found_in_every_varied_hyper_parameter() -> None:
    grid = [{"stages": float(k), "lr": lr, "wd": 0.0} for k in (1, 2, 3) for lr in (1e-3, 4e-3)]
    assert edges({"stages": 2.0, "lr": 4e-3, "wd": 0.0}, grid) == {"lr": "high"}
    assert edges({"stages": 1.0, "lr": 1e-3, "wd": 0.0}, grid) == {"stages": "low", "lr": "low"}
    assert edges({"lr": 1e-3}, [{"lr": 1e-4}, {"lr": 1e-3}, {"lr": 1e-2}]) == {}


def experiment(reference_lr: float | None) -> Experiment:
    arms = {
        "erm": Arm("erm", ORDER, HYPER),
        "probe": Arm("probe", ("c1", "c2"), {"c1": {"c": 1.0}, "c2": {"c": 2.0}}),
        "far": Arm("far", ("far",), {"far": {"lr": 1.0}}),
    }
    return Experiment("e", "d", "E", "", "erm", reference_lr, ("val-wga",), 10, (), arms)


def test_same_lr_keeps_the_reference_rate_and_arms_without_a_rate() -> None:
    study = experiment(1e-3)
    assert in_scope(study.arms["erm"], SAME_LR, 1e-3) == ("middle",)
    assert in_scope(study.arms["erm"], TUNED, 1e-3) == ORDER
    assert in_scope(study.arms["probe"], SAME_LR, 1e-3) == ("c1", "c2")
    assert in_scope(study.arms["far"], SAME_LR, 1e-3) == ()
    assert scopes(study) == (TUNED, SAME_LR)
    assert scopes(experiment(None)) == (TUNED,)


def test_select_flags_edges_of_the_scope_and_leaves_out_arms_without_candidates() -> None:
    frame = records(("low", 0, 1, 0, 0.9, 0), ("middle", 0, 1, 0, 0.5, 0), ("high", 0, 1, 0, 0.4, 0))
    tuned = select(frame, experiment(1e-3), find_rule("val-wga"), TUNED)
    assert tuned.select("arm", "configuration", "edge").rows() == [("erm", "low", "lr low")]
    same = select(frame, experiment(1e-3), find_rule("val-wga"), SAME_LR)
    assert same.select("arm", "configuration", "edge").rows() == [("erm", "middle", "")]


def test_an_unknown_rule_names_those_that_exist() -> None:
    with pytest.raises(
        ConfigError, match=r"selection rule 'val-loss' does not exist\.\n  choose from val-average, val-wga"
    ):
        find_rule("val-loss")


def test_a_plan_whose_contrast_names_no_arm_is_refused() -> None:
    plan = make_plan()
    plan["experiments"]["demo"]["contrasts"] = [["ewc", "lwf"]]
    with pytest.raises(ConfigError, match="compares with arm lwf, which it does not have"):
        read_study(plan)


def test_a_plan_with_a_cell_in_no_job_is_refused() -> None:
    plan = make_plan()
    plan["cells"]["stray"] = dict(next(iter(plan["cells"].values())))
    with pytest.raises(ConfigError, match="1 of 115 cells belong to no job, first stray"):
        read_study(plan)
