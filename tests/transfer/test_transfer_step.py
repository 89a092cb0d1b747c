"""The command from end to end on the miniature plan, with a grid of seconds."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml

from anchored.errors import ConfigError
from anchored.fisher.conditioning import _mean
from anchored.paths import Paths
from anchored.transfer import step, study
from anchored.transfer.retention import Retention
from anchored.transfer.settings import ANCHORS, TransferStudy, read_settings
from anchored.transfer.step import fim_transfer
from anchored.transfer.summary import contrasts, readings
from anchored.transfer.target import photograph_task

CPU = torch.device("cpu")
SETTINGS = {
    "seeds": 2, "train": 4, "test": 6, "epochs": 2, "batch": 16, "strengths": [1.0e8], "rates": [1.0e-3], "held_out": 6,
    "bootstrap": 100,
}  # fmt: skip
FILES = ("cells.parquet", "summary.csv", "summary.md", "reverse-transfer.svg", "reverse-transfer.png")


@pytest.fixture(scope="module")
def settings() -> TransferStudy:
    return TransferStudy.model_validate(SETTINGS)


@pytest.fixture(scope="module")
def done(mini: Paths, mini_plan: dict[str, Any], settings: TransferStudy) -> Path:
    """The folder of a finished study; tests must not change it."""
    fim_transfer(mini_plan, ["fim-1"], mini, settings)
    return mini.results / "transfer" / "fim-1"


@pytest.fixture(scope="module")
def cells(done: Path) -> pl.DataFrame:
    return pl.read_parquet(done / "cells.parquet")


def test_every_arm_has_its_grid(cells: pl.DataFrame, done: Path, mini: Paths) -> None:
    counts = dict(cells.group_by("arm").len().iter_rows())
    assert counts == {
        **dict.fromkeys((*ANCHORS, "low-lr"), 2), "free": 2, "frozen": 2, "pre-trained": 1, "random": 1, "random-step": 4,
    }  # fmt: skip
    assert not mini.work("fim-transfer-fim-1").exists()
    assert json.loads((done / "record.json").read_text())["measurements"] == {"cells": 18}


def test_a_backbone_that_does_not_move_keeps_everything(cells: pl.DataFrame) -> None:
    """Strength infinity is the pre-trained backbone to the last bit; a very large one is close to it (six steps of Adam)."""
    (before,) = cells.filter(pl.col("arm") == "pre-trained").to_dicts()
    measures = ("ssl_loss", "knn", "knn_worst", "drift", "full", "diagonal")
    for cell in cells.filter(pl.col("arm") == "frozen").to_dicts():
        assert cell["displacement"] == 0
        assert [cell[name] for name in measures] == [before[name] for name in measures]
    free = cells.filter(pl.col("arm") == "free")
    for arm in ("l2sp", "ewc-floor", "ewc-layer-mean"):
        strong = cells.filter(pl.col("arm") == arm, pl.col("strength") == 1e8)
        assert strong["drift"].max() < 0.2 * free["drift"].min()
        assert (strong["ssl_loss"] - before["ssl_loss"]).abs().max() < 0.02


def test_conditioning_none_is_normalise_in_other_units(mini: Paths, mini_plan, settings: TransferStudy, tmp_path: Path) -> None:
    """Why `none` has no line of its own among the arms."""
    retention = Retention(mini_plan, "fim-1", mini, settings, CPU)
    target = photograph_task(1, draws=1, train=4, test=6, size=retention.size)
    cell = next(cell for cell in study.grid("fim-1", 7, settings) if cell["name"].startswith("ewc-lr"))
    scaled = cell["hyper"] | {"strength": cell["hyper"]["strength"] / _mean(retention.fisher)}
    raw = cell | {"conditioning": {"kind": "none", "value": None}, "hyper": scaled}
    lines = [study._run(each, retention, target, tmp_path / "state.pt", CPU) for each in (cell, raw)]
    for name in ("ssl_loss", "displacement", "drift"):
        assert lines[1][name] == pytest.approx(lines[0][name], rel=1e-2)


def test_running_again_does_nothing(done: Path, run_cli, mini: Paths, monkeypatch, tmp_path: Path) -> None:
    """The command with the settings of the study, as a file."""
    monkeypatch.setattr(step, "run_cells", lambda *_, **__: pytest.fail("cells ran again"))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(SETTINGS))
    outcome = run_cli("fim-transfer", "fim-1", "--settings", str(tmp_path / "s.yaml"), "--out", str(tmp_path), root=mini.root)
    assert outcome.code == 0, outcome.err
    for name in FILES[1:]:
        assert (tmp_path / name).read_bytes() == (done / name).read_bytes(), name


def test_a_killed_study_continues_to_the_same_bytes(done: Path, mini_copy: Paths, mini_plan, settings, monkeypatch) -> None:
    """Killed after five cells, with another number of seeds: what is finished is kept, and the bytes are those of a whole run."""
    folder = mini_copy.results / "transfer" / "fim-1"
    shutil.rmtree(folder)
    run, ran = study._run, []

    def die(cell, *arguments):
        if len(ran) == 5:
            raise KeyboardInterrupt
        ran.append(cell["name"])
        return run(cell, *arguments)

    monkeypatch.setattr(study, "_run", die)
    with pytest.raises(KeyboardInterrupt):
        fim_transfer(mini_plan, ["fim-1"], mini_copy, settings.model_copy(update={"seeds": 1}))
    ran.clear()
    monkeypatch.setattr(study, "_run", lambda cell, *arguments: ran.append(cell["name"]) or run(cell, *arguments))
    fim_transfer(mini_plan, ["fim-1"], mini_copy, settings)
    assert len(ran) == 18 - 5
    for name in FILES:
        assert (folder / name).read_bytes() == (done / name).read_bytes(), name


def test_other_settings_run_other_cells(done: Path, mini: Paths, mini_plan, settings: TransferStudy) -> None:
    described = [step._described(mini_plan, "fim-1", mini, each) for each in (settings, settings.model_copy(update={"lr": 1e-3}))]
    assert described[0] != described[1]


def test_several_fims_are_pooled(done: Path, mini: Paths, mini_plan, settings, tmp_path: Path) -> None:
    fim_transfer(mini_plan, ["fim-1", "vit-fim"], mini, settings, out=tmp_path)
    assert (tmp_path / "summary.md").read_text().startswith("# Reverse transfer, fim-1, vit-fim\n")
    assert (mini.results / "transfer" / "vit-fim" / "cells.parquet").is_file()
    pooled = pl.read_csv(tmp_path / "summary.csv")
    assert pooled.filter(pl.col("reference").is_null())["seeds"].max() <= 4


def test_a_study_without_gain_says_so(cells: pl.DataFrame, settings: TransferStudy) -> None:
    """Where free fine-tuning gains nothing there is no accuracy to match."""
    flat = cells.with_columns(pl.when(pl.col("replicate") == 0).then(0.5).otherwise(pl.col("accuracy")).alias("accuracy"))
    assert readings(flat)["replicate"].unique().to_list() in ([], [1])
    nowhere = readings(cells.with_columns(accuracy=0.5))
    assert nowhere.is_empty()
    assert contrasts(nowhere, seed=1, draws=100).is_empty()
    assert "seeds are left out" in step.summary_markdown(
        cells.with_columns(accuracy=0.5), nowhere, contrasts(nowhere, seed=1, draws=100), title="t"
    )


def test_differences_are_paired_by_seed() -> None:
    """Seeds differ by far more than arms: unpaired, the interval of [-1.5, -0.5] would cover zero."""
    lines = [
        {"fim": "a", "replicate": seed, "arm": arm, **dict.fromkeys(("ssl_mean", "ssl_at_half", "knn_mean", "worst_mean"), value),
         "gain_kept": value}
        for seed, level in enumerate((0.0, 10.0, 20.0, 30.0))
        for arm, value in (("ewc", level), ("l2sp", level + (0.5, 1.0, 1.0, 1.5)[seed]))
    ]  # fmt: skip
    found = contrasts(pl.DataFrame(lines), seed=1, draws=500).filter(pl.col("arm") == "ewc")
    loss, gain = (found.filter(pl.col("statistic") == name).to_dicts()[0] for name in ("ssl_mean", "gain_kept"))
    assert loss["difference"] == gain["difference"] == pytest.approx(-1.0)
    assert -1.5 <= loss["low"] < -1.0 < loss["high"] <= -0.5
    assert (loss["better"], gain["better"], loss["seeds"]) == (4, 0, 4)


# --- the command -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["nothing"], 2, "'nothing' is not among the fims of the plan."),
        (["fim-1", "--settings", "no.yaml"], 2, "no.yaml cannot be read as YAML"),
        (["fim-1", "--seeds", "0"], 2, "Invalid value for '--seeds'"),
    ],
)
def test_command_errors(run_cli, mini: Paths, arguments: list[str], code: int, expected: str) -> None:
    outcome = run_cli("fim-transfer", *arguments, root=mini.root)
    assert outcome.code == code
    assert expected in outcome.err


def test_missing_input(run_cli, mini_copy: Paths) -> None:
    (mini_copy.fim("fim-2") / "fim.safetensors").unlink()
    outcome = run_cli("fim-transfer", "fim-2", root=mini_copy.root)
    assert outcome.code == 3
    assert "run `anchored fim fim-2`" in outcome.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 3", "unknown key 'seed'; did you mean 'seeds'?"),
        ("strengths: [1, 2]", "rates has 8 values, strengths 2: every arm needs as many cells"),
        ("lr: -1", "lr: Input should be greater than 0"),
        ("- 1", "top level: Input should be"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_bad_settings(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_settings(path)
    assert expected in str(error.value)
