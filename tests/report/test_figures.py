"""Numbers of the figures, and that drawing twice gives the same bytes."""

import re
from typing import Any

import numpy as np
import polars as pl
import pytest

from anchored.evaluate.selection import find_rule
from anchored.evaluate.step import load_groups
from anchored.evaluate.study import read_study
from anchored.paths import Paths
from anchored.report.compose import figures_of, picks_of
from anchored.report.figure_data import fisher_mass, layer_names, strength_curves
from anchored.report.figures import Bars, Level, draw, fisher_figure, group_figure, strength_figure


def test_curves_are_means_over_seeds_at_the_reference_rate(study: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = study
    experiment = read_study(plan).experiments["demo"]
    metrics = pl.read_parquet(paths.metrics)
    curves = strength_curves(metrics, experiment, find_rule("val-wga"))
    assert [curve.arm for curve in curves] == ["l2sp", "ewc", "ewc-shuffled"]
    test = metrics.filter(pl.col("split") == "test", pl.col("arm") == "ewc", pl.col("strength") == 10.0)["worst_group"]
    assert curves[1].strengths == (0.1, 1.0, 10.0)
    assert curves[1].means[2] == pytest.approx(np.mean(test.to_list()))
    assert curves[1].sds[2] == pytest.approx(np.std(test.to_list(), ddof=1))


def test_shares_of_the_fisher_add_up_layer_by_layer() -> None:
    first = {"conv1.weight": np.ones((2, 3)), "conv1.bias": np.full(2, 3.0), "layer1.0.conv2.weight": np.zeros(8)}
    second = {name: np.full_like(tensor, 0.5) for name, tensor in first.items()}
    other = {"blocks.0.attn.weight": np.ones(4)}
    masses = fisher_mass({"one": first, "two": second, "vit": other})
    assert [tuple(mass.traces) for mass in masses] == [("one", "two"), ("vit",)]
    assert masses[0].layers == ("conv1", "layer1.0.conv2")
    assert masses[0].parameters == (0.5, 0.5)
    assert masses[0].traces == {"one": (1.0, 0.0), "two": (0.5, 0.5)}


def test_many_modules_are_joined_into_blocks_in_the_order_of_the_network() -> None:
    """Twelve blocks have 48 linear layers: their names would not be readable. Block 10 comes after block 2."""
    names = ["patch_embed.proj.weight", "cls_token", "norm.weight"]
    names += [
        f"blocks.{i}.{part}.weight" for i in range(12) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ]
    assert set(layer_names(names).values()) == {"patch_embed.proj", "cls_token", "norm"} | {
        f"blocks.{i}" for i in range(12)
    }
    layers = fisher_mass({"vit": {name: np.ones(2) for name in names}})[0].layers
    assert layers == ("patch_embed.proj", "cls_token", *[f"blocks.{i}" for i in range(12)], "norm")


def test_one_seed_is_called_so(study: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = study
    experiment, metrics = read_study(plan).experiments["demo"], pl.read_parquet(paths.metrics)
    picks = picks_of(metrics, experiment).filter(pl.col("replicate") == 0)
    picks = picks.filter(pl.col("backbone") == picks["backbone"][0])
    found = figures_of(picks, metrics, {}, experiment=experiment, groups=load_groups(paths, experiment.dataset))
    assert ["sd over 1 seed." in one.caption for one in found] == [True, True]
    titles = [one.make().axes[0].get_title() for one in found]
    assert [title.endswith("mean and sd over 1 seed") for title in titles] == [True, True]


def test_drawing_twice_gives_the_same_bytes(study: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = study
    curves = strength_curves(pl.read_parquet(paths.metrics), read_study(plan).experiments["demo"], find_rule("val-wga"))
    mass = fisher_mass({"one": {"conv1.weight": np.ones((2, 3)), "fc.weight": np.ones(2)}})[0]
    bars = [
        Bars("erm", "ERM", (0.5, 0.6), (0.1, 0.0)),
        Bars("new", "New", (0.5, float("nan")), (0.1, 0.0), hatched=True),
    ]
    for make in (
        lambda: strength_figure(curves, [Level("erm", "ERM", 0.5)], title="T", seeds=6),
        lambda: group_figure(bars, ["loops on grass", "b"], title="T", seeds=2),
        lambda: fisher_figure(mass, title="T"),
    ):
        svg, png = draw(make)
        assert (svg, png) == draw(make)
        assert not re.search(rb"20\d\d-\d\d-\d\d|<dc:date>|<dc:creator>", svg)
        assert b"Software" not in png
        assert b"tIME" not in png
