"""The numbers that stand in tables, computed a second time from a miniature's predictions with plain loops."""

import csv
import dataclasses
import io
import re
import statistics
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from anchored.evaluate.compare import SCHEMA
from anchored.evaluate.groups import Groups
from anchored.evaluate.selection import find_rule
from anchored.evaluate.study import read_study
from anchored.paths import Paths
from anchored.report.compose import picks_of
from anchored.report.table import Table, escape, index, latex, markdown
from anchored.report.table import csv as to_csv
from anchored.report.tables import contrast_table, group_table, results
from anchored.report.text import ARM_NAMES, MINUS

GROUPS = Groups(("a", "b"), (90, 10), (5, 5))
PAINT = {
    "name": "PaintBirds", "version": "2", "licences": ["CC0-1.0"], "note": "Drawn birds.", "counts": "Waterbirds (as published)",
}  # fmt: skip
NAMES = {shown: arm for arm, shown in ARM_NAMES.items()}

# (arm, configuration, hyper, replicate): (val WGA, test accuracy of group 0, of group 1)
RUNS = {
    ("erm", "l", (("lr", 1e-4),), 0): (0.7, 0.80, 0.60),
    ("erm", "h", (("lr", 1e-3),), 0): (0.5, 0.90, 0.40),
    ("erm", "l", (("lr", 1e-4),), 1): (0.6, 0.70, 0.66),
    ("erm", "h", (("lr", 1e-3),), 1): (0.4, 0.92, 0.30),
    ("ewc", "s1", (("lr", 1e-3), ("strength", 1.0)), 0): (0.3, 0.90, 0.50),
    ("ewc", "s3", (("lr", 1e-3), ("strength", 3.0)), 0): (0.8, 0.84, 0.68),
    ("ewc", "s9", (("lr", 1e-3), ("strength", 9.0)), 0): (0.8, 0.10, 0.10),
    ("ewc", "s1", (("lr", 1e-3), ("strength", 1.0)), 1): (0.9, 0.88, 0.64),
    ("ewc", "s3", (("lr", 1e-3), ("strength", 3.0)), 1): (0.8, 0.20, 0.20),
    ("ewc", "s9", (("lr", 1e-3), ("strength", 9.0)), 1): (0.1, 0.20, 0.20),
}


def miniature() -> tuple[Any, pl.DataFrame]:
    """A study of two arms, two seeds of one checkpoint, two groups of equal size; metrics written by hand."""
    cells, rows, arms = {}, [], {"erm": {"configurations": ["l", "h"]}, "ewc": {"configurations": ["s1", "s3", "s9"]}}
    for (arm, configuration, hyper, replicate), (val, zero, one) in RUNS.items():
        name = f"{arm}-{configuration}-{replicate}"
        cells[name] = {"experiment": "mini", "dataset": "d", "backbone": "b", "family": "b", "arm": arm,
                       "configuration": configuration, "hyper": dict(hyper), "replicate": replicate, "seed": 0}  # fmt: skip
        common = {"cell": name, "epoch": 1, "experiment": "mini", "dataset": "d", "backbone": "b", "family": "b",
                  "arm": arm, "configuration": configuration, "replicate": replicate, "seed": 0, "single_class": False, "n": 100,
                  "n_group_0": 50, "n_group_1": 50}  # fmt: skip
        test = {"average": (zero + one) / 2, "adjusted": 0.9 * zero + 0.1 * one, "worst_group": min(zero, one),
                "worst_group_id": 0 if zero <= one else 1, "group_0": zero, "group_1": one}  # fmt: skip
        rows += [{**common, "split": "val", **dict.fromkeys(test, val)}, {**common, "split": "test", **test}]
    plan = {
        "name": "m", "seed": 0, "cells": cells, "baseline": {"j": {"cells": list(cells)}}, "anchored": {},
        "experiments": {
            "mini": {"dataset": "d", "title": "Mini", "note": "Premise.", "baseline": "erm", "reference_lr": 1e-3,
                     "rules": ["val-wga"], "bootstrap": 100, "contrasts": [["ewc", "erm"]], "arms": arms}
        },
    }  # fmt: skip
    experiment = read_study(plan).experiments["mini"]
    return experiment, picks_of(pl.DataFrame(rows, strict=False), experiment)


def compared(**row: Any) -> pl.DataFrame:
    common = {"experiment": "mini", "kind": "baseline", "rule": "val-wga", "scope": "tuned", "arm": "ewc",
              "reference": "erm", "reference_scope": "tuned", "sd": 0.1, "ties": 0, "seeds": 2, "draws": 100,
              "wins": 1}  # fmt: skip
    values = {"worst_group": (0.03, -0.0123, 0.0777), "average": (0.0951, 0.05, 0.1), "adjusted": (-0.0004, -0.2, 0.0)}
    rows = [
        {**common, "statistic": name, "difference": d, "low": low, "high": high, **row}
        for name, (d, low, high) in values.items()
    ]
    return pl.DataFrame(rows, schema={key: kind for key, kind in SCHEMA.items() if key in rows[0]})


def column(table: Table, arm: str, name: str) -> str:
    row = next(row for row in table.rows if row[0].split(",")[0] == ARM_NAMES[arm])
    return row[table.header.index(name)]


def test_tuned_table_prints_what_the_picks_say() -> None:
    """ERM picks l on both seeds; EWC picks s3 (the first of a tie with s9) and s1."""
    experiment, picks = miniature()
    table = results(picks, compared(), experiment=experiment, rule=find_rule("val-wga"), scope="tuned", groups=GROUPS)
    wga = [0.68, 0.64]
    assert column(table, "ewc", "WGA") == f"{100 * statistics.mean(wga):.1f} ± {100 * statistics.stdev(wga):.1f}"
    assert column(table, "ewc", "average") == "76.0 ± 0.0"
    adjusted = [0.9 * 0.84 + 0.1 * 0.68, 0.9 * 0.88 + 0.1 * 0.64]
    assert column(table, "ewc", "adjusted average") == (
        f"{100 * statistics.mean(adjusted):.1f} ± {100 * statistics.stdev(adjusted):.1f}"
    )
    assert column(table, "ewc", "configurations") == "3"
    assert column(table, "ewc", "selected (seeds)") == "strength 1 (1/2)"
    assert column(table, "ewc", f"WGA {MINUS} tuned ERM") == "+3.0 [-1.2, +7.8]"
    assert column(table, "ewc", f"average {MINUS} tuned ERM") == "+9.5 [+5.0, +10.0]"
    assert column(table, "ewc", "grid edge") == "† strength low 1/2"
    assert column(table, "erm", "selected (seeds)") == "lr 1e-4 (2/2)"
    assert column(table, "erm", f"WGA {MINUS} tuned ERM") == ""
    assert column(table, "erm", "grid edge") == "† lr low 2/2"
    assert "over 2 seeds" in table.caption
    text = " ".join(table.notes)
    for sentence in (
        "validation worst-group accuracy", "2 seeds: 1 pre-trained checkpoint", "share 1 checkpoint", "Fewer than 5 seeds",
        "unequal numbers of configurations (ERM 2, EWC 3)", "In 1 of 4 picks several candidates", "Premise.",
        "strength in {1, 3, 9}",
    ):  # fmt: skip
        assert sentence in text
    row = next(csv.DictReader(io.StringIO(to_csv(table).split("\n", 1)[0] + "\n" + to_csv(table).split("\n")[2])))
    assert float(row["wga_mean"]) == pytest.approx(0.66)
    assert float(row["wga_sd"]) == pytest.approx(statistics.stdev(wga))
    assert float(row["vs_tuned_wga_high"]) == 0.0777


def test_same_rate_table_compares_with_both_baselines() -> None:
    """At the reference rate only ERM's worse configuration competes: both comparisons have to stand side by side."""
    experiment, picks = miniature()
    both = pl.concat([
        compared(scope="same-lr", reference_scope="same-lr", difference=0.31),
        compared(scope="same-lr", reference_scope="tuned", difference=0.03),
        compared(scope="same-lr", reference_scope="tuned", difference=-0.28, arm="erm"),
    ])  # fmt: skip
    table = results(picks, both, experiment=experiment, rule=find_rule("val-wga"), scope="same-lr", groups=GROUPS)
    assert column(table, "erm", "WGA") == "35.0 ± 7.1"
    assert column(table, "ewc", f"WGA {MINUS} ERM at lr 1e-3").startswith("+31.0 [")
    assert column(table, "ewc", f"WGA {MINUS} tuned ERM").startswith("+3.0 [")
    assert column(table, "erm", f"WGA {MINUS} ERM at lr 1e-3") == ""
    assert column(table, "erm", f"WGA {MINUS} tuned ERM").startswith("-28.0 [")
    assert "a gain of the rate, not of the anchor" in " ".join(table.notes)


def test_every_table_names_the_true_source() -> None:
    """A table on a stand-in must not pass for one on Waterbirds, nor one convention of cutting for another."""
    experiment, picks = miniature()
    cut = {"convention": "dfr", "steps": "256x256 bilinear, centre 224"}
    groups = dataclasses.replace(GROUPS, source=PAINT, preprocessing=cut)
    rule = find_rule("val-wga")
    for table in (
        results(picks, compared(), experiment=experiment, rule=rule, scope="tuned", groups=groups),
        contrast_table(picks, compared(kind="contrast"), experiment=experiment, rule=rule, groups=groups),
        group_table(picks, experiment=experiment, rule=rule, groups=groups),
    ):
        assert table.notes[-2:] == (
            "Source: PaintBirds 2 (CC0-1.0). Waterbirds (as published). Drawn birds.",
            "Preprocessing: dfr (256x256 bilinear, centre 224).",
        )
    plain = dataclasses.replace(GROUPS, source={"name": "folder birds, as given"})
    assert group_table(picks, experiment=experiment, rule=rule, groups=plain).notes[-1] == "Source: folder birds, as given."


def test_contrasts_print_both_averages() -> None:
    experiment, picks = miniature()
    table = contrast_table(
        picks, compared(kind="contrast"), experiment=experiment, rule=find_rule("val-wga"), groups=GROUPS
    )
    assert table.rows == (
        (f"EWC {MINUS} ERM", "tuned", "+3.0 [-1.2, +7.8]", "1/2", "+9.5 [+5.0, +10.0]", "1/2", "0.0 [-20.0, 0.0]", "1/2"),
    )


def test_group_table_shows_the_baseline_at_both_rates() -> None:
    experiment, picks = miniature()
    table = group_table(picks, experiment=experiment, rule=find_rule("val-wga"), groups=GROUPS)
    assert [row[0] for row in table.rows] == ["ERM, tuned", "EWC, tuned", "ERM, lr 1e-3"]
    assert table.rows[2][1:3] == ("91.0 ± 1.4", "35.0 ± 7.1")
    assert table.rows[2][-1] == "b (2/2)"


def test_the_oracle_is_called_an_oracle(study: tuple[dict[str, Any], Paths]) -> None:
    _, paths = study
    for path in paths.tables.glob("demo-*.md"):
        assert ("ORACLE" in path.read_text()) == ("oracle" in path.name)


def test_every_printed_accuracy_is_that_of_the_selected_predictions(study: tuple[dict[str, Any], Paths]) -> None:
    """From the predictions files and selected.csv to the printed digits, with nothing of ours in between."""
    plan, paths = study
    jobs = [*plan["baseline"], *plan["anchored"]]
    raw = pl.concat([pl.read_parquet(paths.run(job) / "predictions.parquet") for job in jobs])
    correct: dict[tuple[str, int], list[bool]] = {}
    for row in raw.filter(pl.col("split") == "test").iter_rows(named=True):
        correct.setdefault((row["cell"], row["group"]), []).append(row["prediction"] == row["y"])
    chosen = list(csv.DictReader(paths.selected.open()))
    for rule in ("val-wga", "val-average", "oracle-test-wga"):
        for scope in ("tuned", "same-lr"):
            lines = (paths.tables / f"demo-{rule}-{scope}.md").read_text().splitlines()
            body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][
                1:
            ]
            assert len(body) == 6
            for cells in body:
                mine = [
                    row["cell"]
                    for row in chosen
                    if (row["rule"], row["scope"], row["arm"]) == (rule, scope, NAMES[cells[0]])
                ]
                accuracies = [[statistics.mean(correct[cell, g]) for g in range(4)] for cell in mine]
                worst = [min(values) for values in accuracies]
                plain = [statistics.mean(values) for values in accuracies]  # the test groups have equal sizes
                adjusted = [(380 * v[0] + 20 * v[1] + 20 * v[2] + 380 * v[3]) / 800 for v in accuracies]
                for printed, values in zip(cells[3:6], (worst, plain, adjusted), strict=True):
                    mean, sd = map(float, printed.split(" ± "))
                    assert mean == pytest.approx(100 * statistics.mean(values), abs=0.0501)
                    assert sd == pytest.approx(100 * statistics.stdev(values), abs=0.0501)


def test_all_forms_have_equal_columns_and_balanced_braces(study: tuple[dict[str, Any], Paths]) -> None:
    """The title holds an ampersand and an underscore, the note a percent sign: each breaks LaTeX if it is not escaped."""
    _, paths = study
    files = sorted(paths.tables.glob("demo-*.tex"))
    assert len(files) == 10
    for path in files:
        text = path.read_text()
        bare = re.sub(r"\\.", "", text)
        assert bare.count("{") == bare.count("}")
        assert "%" not in re.sub(r"^%.*|%$", "", bare, flags=re.MULTILINE)
        assert not re.findall(r"[^\x00-\x7f]", text)
        body = [line for line in text.splitlines() if line.endswith(r"\\")]
        markdown_rows = [
            line
            for line in path.with_suffix(".md").read_text().splitlines()
            if line.startswith("|") and "|--" not in line
        ]
        columns = {len(re.findall(r"(?<!\\)&", line)) + 1 for line in body}
        assert columns == {line.count("|") - 1 for line in markdown_rows}
        assert len(body) == len(markdown_rows)
        spec = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
        assert spec is not None
        assert {len(spec.group(1))} == columns
        widths = {len(row) for row in csv.reader(path.with_suffix(".csv").open())}
        assert len(widths) == 1


def test_the_index_links_existing_files(study: tuple[dict[str, Any], Paths]) -> None:
    _, paths = study
    targets = re.findall(r"\]\(([^)]+)\)", (paths.tables / "README.md").read_text())
    assert len(targets) == 33
    for target in targets:
        assert (paths.tables / target).is_file()


def test_escaping_knows_every_special_character() -> None:
    assert escape(r"a\b & 5 % _{x}^~ ± †") == (
        r"a\textbackslash{}b \& 5 \% \_\{x\}\textasciicircum{}\textasciitilde{} $\pm$ $\dagger$"
    )


def test_markdown_escapes_the_column_separator(tmp_path: Path) -> None:
    table = Table("t", "T", "C", ("a|b", "n"), (("x|y", "1"),), ("note",), pl.DataFrame({"a": [1]}))
    assert r"x\|y" in markdown(table)
    assert r"\bottomrule" in latex(table)
    assert index([("t", "T")], []).endswith("None.\n")
