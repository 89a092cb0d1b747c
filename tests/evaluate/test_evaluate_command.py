"""The command's files and its errors, on an invented study in a temporary folder."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from synthetic_study import make_plan, make_predictions, write_study

from anchored.errors import InputError
from anchored.evaluate.step import evaluate
from anchored.paths import Paths

SMALL = {"erm": {"lr": [1e-4, 1e-3]}, "ewc": {"lr": [1e-3], "strength": [1.0, 10.0]}}
OUTPUTS = ("metrics", "metrics_csv", "selected", "comparisons")
JOB = "demo-tiny-1-erm-1"


@pytest.fixture
def small(tmp_path: Path) -> tuple[dict[str, Any], Paths]:
    plan = make_plan(grids=SMALL, replicates=2, draws=50)
    plan["experiments"]["demo"]["contrasts"] = []
    return plan, write_study(tmp_path, plan, fisher=False, epochs=(4, 8))


def rewrite(paths: Paths, change: pl.Expr | None = None, **columns: pl.Expr) -> None:
    path = paths.run(JOB) / "predictions.parquet"
    frame = pl.read_parquet(path)
    (frame if change is None else frame.filter(change)).with_columns(**columns).write_parquet(path)


def refusal(plan: dict[str, Any], paths: Paths) -> str:
    """The sentence the user reads."""
    with pytest.raises(InputError) as caught:
        evaluate(plan, paths)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_metrics_hold_a_row_for_every_cell_epoch_and_split(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    evaluate(plan, paths)
    table = pl.read_parquet(paths.metrics)
    assert table.select("cell", "epoch", "split").rows() == [
        (cell, epoch, split) for cell in plan["cells"] for epoch in (4, 8) for split in ("val", "test")
    ]
    name = next(iter(plan["cells"]))
    raw = make_predictions(plan, JOB, epochs=(8,)).filter(pl.col("cell") == name, pl.col("split") == "test")
    right = (raw["prediction"] == raw["y"]).to_numpy()
    by_group = [right[(raw["group"] == g).to_numpy()].mean() for g in range(4)]
    row = table.filter(pl.col("cell") == name, pl.col("epoch") == 8, pl.col("split") == "test").row(0, named=True)
    assert [row[f"group_{g}"] for g in range(4)] == pytest.approx(by_group)
    assert row["worst_group"] == min(by_group)
    assert row["worst_group_id"] == int(np.argmin(by_group))
    assert row["average"] == pytest.approx(right.mean())
    assert row["adjusted"] == pytest.approx(np.dot(by_group, [380, 20, 20, 380]) / 800)
    assert row["worst_class"] == pytest.approx(min(right[(raw["y"] == y).to_numpy()].mean() for y in (0, 1)))
    assert (row["lr"], row["strength"], row["stages"], row["c"], row["n"]) == (1e-4, None, None, None, 160)
    assert not row["single_class"]


def test_comparisons_equal_the_means_of_the_selected_cells(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    evaluate(plan, paths)
    chosen = pl.read_csv(paths.selected)
    compared = pl.read_parquet(paths.comparisons).filter(pl.col("statistic") == "worst_group", pl.col("arm") == "ewc")
    for row in compared.iter_rows(named=True):
        means = [
            chosen.filter(pl.col("rule") == row["rule"], pl.col("scope") == row[scope], pl.col("arm") == row[arm])
            for arm, scope in (("arm", "scope"), ("reference", "reference_scope"))
        ]
        assert row["difference"] == pytest.approx(means[0]["worst_group"].mean() - means[1]["worst_group"].mean())
        assert (row["cells"], row["epochs"]) == (means[0]["cell"].to_list(), means[0]["epoch"].to_list())
        assert row["low"] <= row["high"]
        assert row["seed_names"] == ["tiny-1/0", "tiny-1/1", "tiny-2/0", "tiny-2/1"]
    assert set(compared.select("scope", "reference_scope").rows()) == {
        ("tuned", "tuned"), ("same-lr", "same-lr"), ("same-lr", "tuned"),
    }  # fmt: skip


def test_two_runs_give_the_same_bytes(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    evaluate(plan, paths)
    first = {name: getattr(paths, name).read_bytes() for name in OUTPUTS}
    evaluate(plan, paths)
    assert first == {name: getattr(paths, name).read_bytes() for name in OUTPUTS}


def test_the_order_of_rows_in_a_file_does_not_matter(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    evaluate(plan, paths)
    first = {name: getattr(paths, name).read_bytes() for name in OUTPUTS}
    path = paths.run(JOB) / "predictions.parquet"
    pl.read_parquet(path).sample(fraction=1, shuffle=True, seed=0).write_parquet(path)
    evaluate(plan, paths)
    assert first == {name: getattr(paths, name).read_bytes() for name in OUTPUTS}


def test_a_model_of_one_class_is_flagged(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    rewrite(paths, prediction=pl.lit(0, pl.Int16))
    evaluate(plan, paths)
    table = pl.read_parquet(paths.metrics)
    flagged = table.filter(pl.col("single_class"))
    assert set(flagged["cell"]) == set(plan["baseline"][JOB]["cells"])
    assert (flagged["worst_group"] == 0).all()


def test_a_missing_file_names_count_and_command(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    shutil.rmtree(paths.run(JOB))
    assert refusal(plan, paths) == (
        f"evaluate all needs 5 files, 1 of them missing: {paths.run(JOB) / 'predictions.parquet'}.\n"
        f"  run `anchored finetune {JOB}`, or let snakemake do so."
    )


def test_a_missing_cell_is_found_inside_its_file(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    gone = plan["baseline"][JOB]["cells"][1]
    rewrite(paths, pl.col("cell") != gone)
    message = refusal(plan, paths)
    assert f"1 of 16 cells of the plan have no predictions; first {gone}.\n  run `anchored finetune {JOB}`" in message


def test_a_foreign_cell_is_refused(small: tuple[dict[str, Any], Paths]) -> None:
    """Also one that the plan knows, in another job's file: it would be counted twice."""
    plan, paths = small
    stranger = plan["anchored"]["demo-tiny-1-ewc-1"]["cells"][0]
    first = plan["baseline"][JOB]["cells"][0]
    rewrite(paths, cell=pl.col("cell").replace(first, stranger))
    assert refusal(plan, paths).startswith(
        f"results/runs/{JOB}/predictions.parquet holds cell {stranger}, which the plan does not put there"
    )


def test_a_truncated_file_is_refused(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    path = paths.run(JOB) / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    message = refusal(plan, paths)
    assert f"{path} cannot be read, it is damaged or was cut short" in message
    assert message.endswith(f"remove {path.parent} and run `anchored finetune {JOB}`.")


def test_a_file_without_a_column_is_refused(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    path = paths.run(JOB) / "predictions.parquet"
    pl.read_parquet(path).drop("group").write_parquet(path)
    assert "lacks a column of predictions" in refusal(plan, paths)


def test_other_test_images_are_refused(small: tuple[dict[str, Any], Paths]) -> None:
    """Paired by image means the same images: a cell from before the data changed must not be compared with others."""
    plan, paths = small
    odd = plan["baseline"][JOB]["cells"][0]
    rewrite(paths, (pl.col("cell") != odd) | (pl.col("row") != 10_000))
    message = refusal(plan, paths)
    assert f"the test images of 1 cells differ from the others', first {odd} (159 images) against" in message


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"group": pl.lit(9, pl.Int16)}, "has images of group 9; the data set has 0 to 3"),
        ({"row": pl.lit(1, pl.Int32)}, "more than once"),
        ({"split": pl.lit("val")}, "lacks the val or the test split of 8 epochs"),
        ({"split": pl.lit("dev")}, "has a split called dev"),
        ({"prediction": pl.lit(None, pl.Int16)}, "has missing values in prediction"),
    ],
    ids=["group", "twice", "split", "unknown-split", "null"],
)
def test_impossible_predictions_are_refused(
    small: tuple[dict[str, Any], Paths], columns: dict[str, pl.Expr], sentence: str
) -> None:
    plan, paths = small
    rewrite(paths, **columns)
    assert sentence in refusal(plan, paths)


def test_a_manifest_without_training_sizes_is_refused(small: tuple[dict[str, Any], Paths]) -> None:
    plan, paths = small
    (paths.data("scenes") / "manifest.json").write_text('{"groups": {"test": {"0": 4}}}')
    assert refusal(plan, paths).endswith("(groups.train).\n  run `anchored prepare scenes`.")


def test_neither_evaluation_nor_report_imports_torch() -> None:
    """Importing torch costs seconds and a gigabyte; tables have to be made where it is not installed."""
    code = "import sys, anchored.evaluate.step, anchored.report.step; print('torch' in sys.modules)"
    path = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}, check=True
    )
    assert done.stdout.strip() == "False"
