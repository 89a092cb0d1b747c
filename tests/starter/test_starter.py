"""`anchored init`: from an unknown folder to a configuration that compiles, and to tables."""

import csv
import os
import shutil
from pathlib import Path

import image_sets
import numpy as np
import pytest
import yaml
from PIL import Image

from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.plan.read import read_config


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Ninety-six noisy images: class in a red square, place in the tint, which agree in 3 of 4 training images."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "My Birds"
    (folder / "img").mkdir(parents=True)
    rows = []
    for number in range(96):
        split = ("train", "train", "val", "test")[number % 4]
        y, odd = number // 4 % 2, number // 8 % 4
        a = 1 - y if odd == 3 or (split != "train" and odd == 1) else y
        pixels = rng.normal(90, 30, (36, 40, 3))
        pixels[..., 1 if a else 2] += 60
        pixels[8:28, 8:28, 0] += 90 * y
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "img" / f"{number}.png")
        rows.append((f"img/{number}.png", ("ibis", "jay")[y], ("lake", "wood")[a], split))
    with (folder / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("img_filename", "species", "habitat", "split"), *rows])
    return folder


def test_from_an_unknown_folder_to_tables(birds, run_cli, monkeypatch) -> None:
    """Every step of what `init` wrote, as its output says; only the numbers of seeds and passes are cut down."""
    root = birds.parent
    monkeypatch.chdir(root)
    done = run_cli("init", "My Birds")
    assert done.code == 3
    assert "lacks a column for the label" in done.err
    table = birds / "metadata.csv"
    table.write_text(table.read_text().replace("species", "label").replace("habitat", "background"))
    done = run_cli("init", "My Birds")
    assert done.code == 0, done.err
    assert "  train 48 images (ibis, lake: 18; ibis, wood: 6; jay, lake: 6; jay, wood: 18)\n" in done.out
    assert "reader: folder, folder: My Birds" in done.out
    assert "shorter side of 32 sampled images: 36 to 36 pixels" in done.out
    assert "anchored plan --config config/my-birds.yaml --out plans/my-birds.json" in done.out
    path = root / "config" / "my-birds.yaml"
    text = path.read_text()
    for old, new in (("replicates: 5", "replicates: 2"), ("epochs: 100", "epochs: 2"), ("epochs: 8", "epochs: 1")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)
    assert run_cli("plan", "--config", "config/my-birds.yaml", "--out", "plan.json").code == 0
    plan = expand(read_config(path))
    made_by = {"datasets": "prepare", "backbones": "pretrain", "fims": "fim", "baseline": "finetune", "anchored": "finetune"}
    for kind, command in made_by.items():
        for name in plan[kind]:
            done = run_cli(command, name)
            assert done.code == 0, done.err
    for command in ("evaluate", "tables"):
        assert run_cli(command).code == 0
    written = (root / "results" / "tables" / "my-birds-val-wga-tuned.md").read_text()
    assert "- Source: folder My Birds, as given.\n" in written
    assert "- Preprocessing: short-side (shorter side 32 bicubic, centre 32).\n" in written
    assert "(ibis, lake: 18; ibis, wood: 6; jay, lake: 6; jay, wood: 18)" in written
    rows = [line for line in written.splitlines() if line.startswith("| ")][1:]
    assert [row.split("|")[1].strip() for row in rows] == ["ERM", "Linear probe", "Frozen stages", "L2-SP", "EWC"]
    assert run_cli("prepare", "my-birds", "--check").code == 0


def test_a_configuration_is_not_written_over(birds, run_cli, monkeypatch) -> None:
    monkeypatch.chdir(birds.parent)
    table = birds / "metadata.csv"
    table.write_text(table.read_text().replace("species", "y").replace("habitat", "a"))
    done = run_cli("init", "My Birds", "--out", "birds.yaml")
    assert done.code == 0
    assert "anchored plan --config birds.yaml --out plans/birds.json\n" in done.out, "a plan of the same name may be another's"
    before = Path("birds.yaml").read_bytes()
    done = run_cli("init", "My Birds", "--out", "birds.yaml")
    assert done.code == 2
    assert "birds.yaml exists." in done.err
    assert Path("birds.yaml").read_bytes() == before


@pytest.mark.parametrize("build", [image_sets.waterbirds, image_sets.celeba, "whole"])
def test_every_format_compiles(tmp_path, run_cli, monkeypatch, build) -> None:
    """The plan of a configuration that nobody edited."""
    monkeypatch.chdir(tmp_path)
    if build == "whole":
        image_sets.celeba(tmp_path / "set", images="whole")
        os.rename("set/archive.zip", "set.zip")
        name = "set.zip"
    else:
        build(tmp_path / "set")
        name = "set"
    assert run_cli("init", name).code == 0
    assert run_cli("plan", "--config", "config/set.yaml", "--out", "plan.json").code == 0
    for dataset in ("set", "set-bank"):
        done = run_cli("prepare", dataset)
        assert done.code == 0, done.err


def test_labels_cannot_write_the_configuration(tmp_path, run_cli, monkeypatch) -> None:
    """A label with a line break would end the comment that it is printed in."""
    monkeypatch.chdir(tmp_path)
    labels = ["a\nname: evil", 'b"'] * 6
    image_sets.own(tmp_path / "x: [y", labels, [("lake", "wood")[a] for a in image_sets.PLACES], image_sets.SPLITS)
    assert run_cli("init", "x: [y").code == 0
    config = read_config(tmp_path / "config" / "x-y.yaml")
    assert config.name == "x-y"
    assert config.datasets["x-y"].folder == "x: [y"  # type: ignore[union-attr]


@pytest.mark.parametrize(("folder", "name"), [("2021", "data-2021"), ("on", "data-on"), ("1-2", "1-2"), ("1e3", "1e3")])
def test_names_are_text_in_yaml(tmp_path, run_cli, monkeypatch, folder, name) -> None:
    """`2021:` is a key that is a number, `on:` one that is true."""
    monkeypatch.chdir(tmp_path)
    image_sets.waterbirds(tmp_path / folder)
    assert run_cli("init", folder).code == 0
    assert read_config(tmp_path / "config" / f"{name}.yaml").name == name


def test_data_outside_of_the_root_are_named_in_full(tmp_path, run_cli, monkeypatch) -> None:
    image_sets.waterbirds(tmp_path / "data" / "birds")
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    assert run_cli("init", "../data/birds").code == 0
    values = yaml.safe_load(Path("config/birds.yaml").read_text())
    assert values["datasets"]["birds"]["folder"] == str(tmp_path / "data" / "birds")


def test_weights_of_timm_bring_their_size_and_statistics(birds, run_cli, monkeypatch) -> None:
    """Nothing is downloaded. A Fisher needs an SSL loss, which such weights have only with a head."""
    monkeypatch.chdir(birds.parent)
    table = birds / "metadata.csv"
    table.write_text(table.read_text().replace("species", "y").replace("habitat", "a"))
    done = run_cli("init", "My Birds", "--backbone", "vit_small_patch16_224.dino")
    assert done.code == 0, done.err
    values = yaml.safe_load(Path("config/my-birds.yaml").read_text())
    config = Config.model_validate(values)
    (backbone,) = values["backbones"].values()
    assert backbone["weights"] == {"timm": True}
    assert backbone["mean"] == [0.485, 0.456, 0.406]
    assert values["datasets"]["my-birds"]["size"] == 224
    arms = config.experiments["my-birds"].arms.present()
    assert backbone["head"]["from"] == "trained"
    assert backbone["head"]["bank"] == values["fims"]["dino"]["bank"] == "my-birds-bank"
    assert {"erm", "linear-probe", "freeze", "l2sp", "ewc"} <= arms.keys()
    expand(config)
    done = run_cli("init", "My Birds", "--backbone", "vit_small_patch16_224.dyno", "--out", "other.yaml")
    assert done.code == 2
    assert "has no weights called 'vit_small_patch16_224.dyno'" in done.err
    assert "vit_small_patch16_224.dino" in done.err
    assert "vit_base_patch14_dinov2.lvd142m" in run_cli("init", "My Birds", "--backbone", "dinov2", "--out", "other.yaml").err
    assert not Path("other.yaml").exists()


def test_arms_have_equal_numbers_of_configurations(birds, run_cli, monkeypatch) -> None:
    """The arm with the larger grid would win a selection by chance alone."""
    monkeypatch.chdir(birds.parent)
    table = birds / "metadata.csv"
    table.write_text(table.read_text().replace("species", "y").replace("habitat", "a"))
    for number, options in enumerate(((), ("--backbone", "resnet50.a1_in1k"))):
        assert run_cli("init", "My Birds", "--out", f"{number}.yaml", *options).code == 0
        plan = expand(read_config(Path(f"{number}.yaml")))
        (experiment,) = plan["experiments"].values()
        assert {len(arm["configurations"]) for arm in experiment["arms"].values()} == {4}


def test_names_of_the_plan_keep_their_letters(tmp_path, run_cli, monkeypatch) -> None:
    """A name of the plan has a to z only: an accent must not become a gap. The commands that are printed survive a copy."""
    monkeypatch.chdir(tmp_path)
    image_sets.waterbirds(tmp_path / "Vögel am Fluß")
    done = run_cli("init", "Vögel am Fluß", "--root", "my work")
    assert done.code == 0, done.err
    assert Path("my work/config/vogel-am-fluss.yaml").is_file()
    assert "anchored plan --config 'my work/config/vogel-am-fluss.yaml' --out 'my work/plans/vogel-am-fluss.json'" in done.out


def test_an_archive_of_ones_own_is_to_be_unpacked(tmp_path, run_cli, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    image_sets.waterbirds(tmp_path / "birds")
    shutil.make_archive("birds", "zip", "birds")
    done = run_cli("init", "birds.zip")
    assert done.code == 3
    assert done.err.startswith("error: birds.zip is a zip file, but not CelebA's")
    assert "unpack it, and name the folder." in done.err
