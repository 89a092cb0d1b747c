"""`anchored fim-stats` on the miniature study: what it writes, that it repeats the measurement, that it does nothing twice."""

import json
import os

import polars as pl
import pytest
import torch

from anchored.diagnostics.summary import CONDITIONINGS, label, masses, summarise
from anchored.fisher import condition, load_fisher, statistics

ALL = ["fim-1", "fim-2", "vit-fim"]


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes most of the time of a test that does not look."""
    for step in ("diagnostics", "release"):
        monkeypatch.setattr(f"anchored.{step}.step.draw", lambda _: (b"<svg/>", b"\x89PNG"))


@pytest.fixture(scope="module")
def stats(mini, mini_plan, tmp_path_factory):
    """The results of all three FIMs with --split-half."""
    from anchored.diagnostics.step import fim_stats

    out = tmp_path_factory.mktemp("stats")
    text = fim_stats(mini_plan, ALL, mini, halves=True, out=out)
    return out, text


def test_what_is_written_and_printed(stats):
    out, text = stats
    assert text == (out / "stats.md").read_text()
    figures = ("spectrum", "mass", "mass-2", "correlation", "noise")
    expected = {f"{name}.{kind}" for name in figures for kind in ("svg", "png")}
    expected |= {f"{name}.csv" for name in ("stats", "quantiles", "layers", "correlations", "noise")}
    assert {path.name for path in out.iterdir()} == expected | {"stats.md", "stats.json", "record.json"}
    assert all(f"({name}.png)" in text for name in figures)
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in expected if name.endswith(".png"))


def test_the_blocks_repeat_the_stored_measurement(stats, mini):
    """The one check that the halves are halves of this very FIM: same images, views, heads and loss."""
    numbers = json.loads((stats[0] / "stats.json").read_text())
    assert numbers["split_half"]["fim-1"]["images"] == 16
    assert "fim-1: measured again on the first 16 of its 24 images" in stats[1]
    whole = json.loads((stats[0] / "stats.json").read_text())["split_half"]["vit-fim"]
    assert (whole["images"], whole["blocks"], [half["images"] for half in whole["halves"]]) == (8, 8, [1, 2, 4])


def test_a_fim_of_a_power_of_two_is_measured_again_in_full(mini_copy, change_plan, no_figures):
    from anchored.diagnostics.step import fim_stats
    from anchored.fisher.step import fim

    plan = change_plan({("fims", "fim-1", "images"): 16, ("fims", "fim-1", "batch"): 5})
    fim(plan, "fim-1", mini_copy)
    text = fim_stats(plan, ["fim-1"], mini_copy, halves=True)
    (line,) = [line for line in text.splitlines() if "measured again on its 16 images" in line]
    assert float(line.rsplit(" ", 1)[1].rstrip(".")) < 1e-5
    stored = load_fisher(mini_copy.fim("fim-1") / "fim.safetensors")
    found = json.loads((mini_copy.results / "fim-stats/stats.json").read_text())["split_half"]["fim-1"]["means"]
    assert found == pytest.approx({name: float(value.double().mean()) for name, value in stored.items()}, rel=1e-5)


def test_numbers_are_those_of_the_fim(stats, mini):
    """Against the functions that compute one figure at a time."""
    fisher = load_fisher(mini.fim("fim-1") / "fim.safetensors")
    frame = pl.read_csv(stats[0] / "stats.csv").filter(pl.col("fim") == "fim-1")
    assert frame["conditioning"].to_list() == [label(kind, value) for kind, value in CONDITIONINGS]
    for (kind, value), row in zip(CONDITIONINGS, frame.iter_rows(named=True), strict=True):
        found = statistics(condition(fisher, kind, value))
        assert row["effective_rank"] == pytest.approx(found.effective_rank, rel=1e-9)
        assert row["condition_ratio"] == pytest.approx(found.condition_ratio, rel=1e-9)
        assert row["zeros"] == found.zeros
    layers = pl.read_csv(stats[0] / "layers.csv").filter(pl.col("fim") == "fim-1")
    assert layers["trace"].sum() == pytest.approx(1)
    conv1 = float(fisher["conv1.weight"].double().sum()) / sum(float(v.double().sum()) for v in fisher.values())
    assert layers.filter(pl.col("layer") == "conv1")["trace"].item() == pytest.approx(conv1)


def test_fims_of_other_networks_are_not_correlated(stats):
    """The ViT has a line in every table but this one."""
    frame = pl.read_csv(stats[0] / "correlations.csv")
    assert set(zip(frame["fim"], frame["other"], strict=True)) == {("fim-1", "fim-2")}
    (overall,) = frame.filter(pl.col("sampled").is_not_null()).iter_rows(named=True)
    assert -1 < overall["rank"] < 1
    assert overall["tensor"] in (None, "")


def test_a_second_call_measures_nothing_and_says_the_same(stats, mini, mini_plan, monkeypatch, caplog):
    from anchored.diagnostics.step import fim_stats

    out, text = stats
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *_, **__: pytest.fail("a network was run"))
    assert fim_stats(mini_plan, ALL, mini, halves=True, out=out) == text
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_the_same_fims_give_the_same_bytes(stats, mini, mini_plan, tmp_path):
    """Figures and records included: no dates, no times."""
    from anchored.diagnostics.step import fim_stats

    fim_stats(mini_plan, ALL, mini, halves=True, out=tmp_path)
    for path in stats[0].iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_changed_fim_or_result_is_computed_again(mini_copy, mini_plan, no_figures):
    """And what an earlier call left behind goes: it would look like a result of this one."""
    from anchored.diagnostics.step import fim_stats

    folder = mini_copy.results / "fim-stats"
    fim_stats(mini_plan, ["fim-1", "fim-2"], mini_copy)
    assert (folder / "correlation.png").exists()
    (folder / "notes.md").write_text("mine")
    fim_stats(mini_plan, ["fim-1"], mini_copy)
    assert not (folder / "correlation.png").exists()
    assert (folder / "notes.md").read_text() == "mine"
    (folder / "stats.csv").write_text("")
    fim_stats(mini_plan, ["fim-1"], mini_copy)
    assert (folder / "stats.csv").read_text()


def test_files_and_folders_besides_the_plan(run_cli, mini_copy, tmp_path, no_figures):
    """A FIM that somebody published against one's own."""
    run = mini_copy.root
    release = tmp_path / "theirs"
    assert run_cli("fim-release", "fim-2", str(release), root=run).code == 0
    done = run_cli("fim-stats", "fim-1", str(release), "--out", str(tmp_path / "out"), root=run)
    assert done.code == 0, done.err
    assert "How alike FIMs are" in done.out
    assert "| fim-1 | theirs |" in done.out
    done = run_cli("fim-stats", "fim-2", str(mini_copy.fim("fim-2") / "fim.safetensors"), root=run)
    assert done.code == 2
    assert "two FIMs are called 'fim-2'" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fim"], 2, "'fim' is not among the fims of the plan"),
        (["fim-1", "fim-1"], 2, "two FIMs are called 'fim-1'"),
        (["vit-fim"], 3, "is missing"),
    ],
)
def test_what_is_refused(run_cli, mini_copy, arguments, code, sentence):
    os.remove(mini_copy.fim("vit-fim") / "fim.safetensors")
    done = run_cli("fim-stats", *arguments, root=mini_copy.root)
    assert done.code == code
    assert sentence in " ".join(done.err.split())


def test_halves_of_another_backbone_are_refused(mini_copy, mini_plan):
    """The backbone was trained again after the FIM was measured."""
    import shutil

    from anchored.diagnostics.step import fim_stats
    from anchored.fisher.errors import ForeignFisher

    shutil.copy(mini_copy.backbone("resnet-2") / "model.safetensors", mini_copy.backbone("resnet-1") / "model.safetensors")
    with pytest.raises(ForeignFisher, match="'fim-1' was measured on backbone"):
        fim_stats(mini_plan, ["fim-1"], mini_copy, halves=True)
    assert not (mini_copy.results / "fim-stats" / "record.json").exists()


def test_halves_of_another_plan_are_refused(mini_copy, change_plan):
    """fims.images was raised and the FIM not yet measured again: its halves would be of another FIM."""
    from anchored.diagnostics.step import fim_stats
    from anchored.errors import InputError

    with pytest.raises(InputError, match=r"'fim-1' was measured on 24 images, the plan says 32\.\n  run `anchored fim fim-1`"):
        fim_stats(change_plan({("fims", "fim-1", "images"): 32}), ["fim-1"], mini_copy, halves=True)


def test_masses_of_blocks_are_sums_over_their_tensors():
    fisher = {f"blocks.{i}.{part}.weight": torch.full((2,), float(i + 1)) for i in range(30) for part in ("a", "b")}
    (mass,) = masses({"x": summarise(fisher)})
    assert mass.parameters == (1.0,), "thirty blocks are too many lines: they are cut one level higher"
    fisher = {f"blocks.{i}.{part}.weight": torch.full((2,), float(i + 1)) for i in range(13) for part in ("a", "b")}
    (mass,) = masses({"x": summarise(fisher)})
    assert mass.layers == tuple(f"blocks.{i}" for i in range(13))
    assert mass.traces["x"] == pytest.approx([4 * (i + 1) / (4 * 91) for i in range(13)])


def test_a_spectrum_descends_and_holds_the_largest():
    fisher = {"a.weight": torch.rand(1000, generator=torch.Generator().manual_seed(0))}
    found = summarise(fisher)
    curve = found.spectrum["none"]
    assert list(curve.values) == sorted(curve.values, reverse=True)
    assert curve.shares[0] == 0.001
    assert curve.values[0] == pytest.approx(float(fisher["a.weight"].max() / fisher["a.weight"].mean()))
    ordered = fisher["a.weight"].sort(descending=True).values
    middle = len(curve.shares) // 2
    place = round(1000 * curve.shares[middle]) - 1
    assert curve.values[middle] == pytest.approx(float(ordered[place] / fisher["a.weight"].mean()))
    assert found.layers["a"][2] == pytest.approx(float(ordered[500] / fisher["a.weight"].mean()), rel=1e-6)
