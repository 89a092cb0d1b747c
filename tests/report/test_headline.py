"""The numbers that two commits are compared by are those of the tables and of the figure."""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from anchored.paths import Paths

Study = tuple[dict[str, Any], Paths]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_every_number_stands_in_a_table(study: Study):
    plan, paths = study
    found = json.loads((paths.tables / "metrics.json").read_text())
    assert list(found) == ["demo"]
    experiment = plan["experiments"]["demo"]
    assert list(found["demo"]) == experiment["rules"]
    for rule, scopes in found["demo"].items():
        assert list(scopes) == ["tuned", "same-lr"]
        for scope, arms in scopes.items():
            table = {row["arm"]: row for row in rows(paths.tables / f"demo-{rule}-{scope}.csv")}
            assert list(arms) == list(table) == list(experiment["arms"])
            for arm, values in arms.items():
                assert list(values) == ["wga", "average", "adjusted"]
                for name, value in values.items():
                    assert value == pytest.approx(100 * float(table[arm][f"{name}_mean"]), abs=5.1e-5)


def test_the_points_of_the_strength_figure_are_means_over_seeds(study: Study):
    """Computed a second time from the metrics with plain loops; one epoch is stored, so nothing is picked."""
    plan, paths = study
    found = json.loads((paths.tables / "strength.json").read_text())
    test = [row for row in rows(paths.metrics_csv) if row["split"] == "test" and row["strength"]]
    expected = []
    for arm, entry in plan["experiments"]["demo"]["arms"].items():
        for strength in entry["grid"].get("strength", []):
            values = [float(row["worst_group"]) for row in test if row["arm"] == arm and float(row["strength"]) == strength]
            assert len(values) == 6
            expected.append((arm, strength, 100 * statistics.mean(values), 100 * statistics.stdev(values)))
    assert [(point["experiment"], point["arm"], point["strength"]) for point in found] == [
        ("demo", arm, strength) for arm, strength, _, _ in expected
    ]
    assert [point["wga"] for point in found] == pytest.approx([wga for *_, wga, _ in expected], abs=5.1e-5)
    assert [point["sd"] for point in found] == pytest.approx([sd for *_, sd in expected], abs=5.1e-5)


def test_the_demo_has_both_files(root: Path):
    """Git keeps them, so `dvc metrics diff` works from the first commit on."""
    tables = root / "results" / "tables"
    found = json.loads((tables / "metrics.json").read_text())["digitscenes"]["val-wga"]["tuned"]
    shown = {row["arm"]: float(row["wga_mean"]) for row in rows(tables / "digitscenes-val-wga-tuned.csv")}
    assert {arm: values["wga"] for arm, values in found.items()} == {
        arm: pytest.approx(100 * mean, abs=5.1e-5) for arm, mean in shown.items()
    }
    assert json.loads((tables / "strength.json").read_text())
