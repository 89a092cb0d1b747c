"""From a configuration to a plan: counts, identities, seeds, pairing, and what a change leaves alone."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from anchored.errors import ConfigError
from anchored.plan.compile import check_plan
from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.plan.naming import derive_seed

MAPS = ("datasets", "backbones", "fims", "cells", "baseline", "anchored")


@pytest.fixture
def demo(root: Path) -> dict[str, Any]:
    """The demo's configuration as plain values, to be changed by a test."""
    return yaml.safe_load((root / "config/demo.yaml").read_text())


def plan_of(values: dict[str, Any]) -> dict[str, Any]:
    return expand(Config.model_validate(values))


def test_demo_has_the_counted_entries(demo):
    """6 arms of 6 configurations, 4 replicates, 2 backbone copies, 3 configurations a job: counted by hand."""
    plan = plan_of(demo)
    assert {kind: len(plan[kind]) for kind in MAPS} == {
        "datasets": 2, "backbones": 2, "fims": 2, "cells": 6 * 6 * 4 * 2, "baseline": 4 * 2 * 2, "anchored": 2 * 2 * 2,
    }


def test_committed_plan_is_that_of_the_demo(root):
    """Engines read plan.json, users edit demo.yaml: the two must not drift apart. Repair: `anchored plan`."""
    check_plan(root / "config/demo.yaml", root / "plan.json")


def test_every_arm_has_the_same_number_of_configurations(demo):
    """The arm with the larger grid would win a selection by chance alone."""
    plan = plan_of(demo)
    for experiment in plan["experiments"].values():
        assert [len(found["configurations"]) for found in experiment["arms"].values()] == [6] * 6
    for backbone in plan["backbones"]:
        cells = [cell for cell in plan["cells"].values() if cell["backbone"] == backbone]
        assert {arm: sum(cell["arm"] == arm for cell in cells) for arm in {cell["arm"] for cell in cells}} == dict.fromkeys(
            experiment["arms"], 6 * 4
        )


def test_identities_are_plain_and_unique(demo):
    """A dot breaks DVC's lookup, a slash leaves its folder, and a job and a cell of one name would share a folder."""
    plan = plan_of(demo)
    names = [name for kind in MAPS for name in plan[kind]]
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in names)
    runs = [*plan["cells"], *plan["baseline"], *plan["anchored"]]
    assert len(runs) == len(set(runs))


def test_seed_depends_on_dataset_backbone_and_replicate_only(demo):
    """Arms are compared pair by pair; a seed that knew the arm or the grid point would unpair them."""
    by_place: dict[tuple, set[int]] = {}
    for cell in plan_of(demo)["cells"].values():
        by_place.setdefault((cell["dataset"], cell["backbone"], cell["replicate"]), set()).add(cell["seed"])
    assert len(by_place) == 8
    assert all(len(seeds) == 1 for seeds in by_place.values())
    assert len({seed for seeds in by_place.values() for seed in seeds}) == 8


def test_draw_follows_the_replicate(demo):
    """All arms of a replicate must see the same labelled draw, and replicates beyond the draws start over."""
    demo["datasets"]["digitscenes"]["draws"] = 3
    cells = plan_of(demo)["cells"].values()
    assert {(cell["replicate"], cell["draw"]) for cell in cells} == {(0, 0), (1, 1), (2, 2), (3, 0)}


def _add_grid_point(values):
    values["experiments"]["digitscenes"]["arms"]["ewc"]["strength"].insert(0, 0.3)


def _add_replicate(values):
    values["experiments"]["digitscenes"]["replicates"] = 7


def _drop_arm(values):
    del values["experiments"]["digitscenes"]["arms"]["l2sp"]


def _add_experiment(values):
    values["experiments"]["second"] = {**values["experiments"]["digitscenes"], "arms": {"erm": {"lr": [0.5]}}}


def _repack_jobs(values):
    values["experiments"]["digitscenes"]["configurations_per_job"] = 1


@pytest.mark.parametrize("change", [_add_grid_point, _add_replicate, _drop_arm, _add_experiment, _repack_jobs])
def test_change_leaves_all_other_cells_alone(demo, change):
    """Results that took days must survive a wider grid: identity and entry of every other cell stay as they are."""
    before = plan_of(demo)["cells"]
    change(demo)
    after = plan_of(demo)["cells"]
    common = before.keys() & after.keys()
    assert all(before[name] == after[name] for name in common)
    assert common == (before.keys() if change is not _drop_arm else {name for name in before if "-l2sp-" not in name})


@pytest.mark.parametrize("per_job", [1, 3, 4, 100])
def test_jobs_partition_the_cells(demo, per_job):
    """A cell in no job is never run; a cell in two jobs has two results."""
    demo["experiments"]["digitscenes"]["configurations_per_job"] = per_job
    plan = plan_of(demo)
    jobs = {**plan["baseline"], **plan["anchored"]}
    members = [cell for job in jobs.values() for cell in job["cells"]]
    assert sorted(members) == sorted(plan["cells"])
    for name, job in jobs.items():
        cells = [plan["cells"][cell] for cell in job["cells"]]
        assert len({(cell["arm"], cell["backbone"], cell["dataset"]) for cell in cells}) == 1, name
        assert {cell["fim"] for cell in cells} == {job.get("fim")}, name
        assert (name in plan["anchored"]) == (cells[0]["arm"] in ("ewc", "ewc-shuffled")), name


def test_job_digest_tells_a_change_inside_a_cell(demo):
    """An engine watches the entry of a job only; the digest is how a changed cell reaches it."""
    before = plan_of(demo)
    demo["experiments"]["digitscenes"]["training"]["head_lr"] = 2e-2
    after = plan_of(demo)
    for kind in ("baseline", "anchored"):
        assert all(before[kind][name]["digest"] != after[kind][name]["digest"] for name in before[kind])


def test_augmentation_is_spelled_out_in_the_plan(demo):
    """A record tells what was done, not only its name; plans without it have no key, and keep their identity."""
    assert not any("augmentation" in cell["training"] for cell in plan_of(demo)["cells"].values())
    demo["experiments"]["digitscenes"]["training"]["augmentation"] = "dfr"
    for cell in plan_of(demo)["cells"].values():
        assert cell["training"]["augmentation"] == [
            {"step": "random-crop", "scale": [0.7, 1.0], "ratio": [0.75, 4 / 3], "filter": "bilinear"},
            {"step": "mirror", "probability": 0.5},
        ]


def test_fim_belongs_to_the_copy_of_its_backbone(demo):
    """Copy 2 anchored with the Fisher of copy 1 would be a foreign FIM."""
    plan = plan_of(demo)
    for cell in plan["cells"].values():
        if cell["fim"]:
            assert plan["fims"][cell["fim"]]["backbone"] == cell["backbone"]


def test_repeated_grid_value_is_refused(demo):
    """Two cells of one name would silently be one."""
    demo["experiments"]["digitscenes"]["arms"]["erm"]["lr"] = [1e-3, 0.001]
    with pytest.raises(ConfigError, match="two cells would be named 'digitscenes-tiny-resnet-1-erm-lr1e-3-r0'") as caught:
        plan_of(demo)
    assert "remove a repeated grid value" in caught.value.hint


def test_derived_seeds_are_pinned():
    """A silent change of the derivation would change every result; these values are SHA-256 by hand."""
    import hashlib

    expected = int(hashlib.sha256(b"2022|run|digitscenes|tiny-resnet-1|0").hexdigest()[:8], 16) // 2
    assert derive_seed(2022, "run", "digitscenes", "tiny-resnet-1", 0) == expected
    assert 0 <= expected < 2**31


def test_check_names_the_differing_line(root, tmp_path):
    """After a hand edit of plan.json the user wants to know where it differs and how to repair it."""
    text = (root / "plan.json").read_text().splitlines()
    text[4] = text[4] + " "
    (tmp_path / "plan.json").write_text("\n".join(text) + "\n")
    with pytest.raises(ConfigError, match="they differ from line 5 on") as caught:
        check_plan(root / "config/demo.yaml", tmp_path / "plan.json")
    assert "run `anchored plan --config" in caught.value.hint
    with pytest.raises(ConfigError, match="is missing"):
        check_plan(root / "config/demo.yaml", tmp_path / "none.json")


def _imported(demo: dict[str, Any]) -> dict[str, Any]:
    """The demo with an imported backbone instead of its own, and nothing but a linear probe on it."""
    demo["backbones"] = {"theirs": {"architecture": {"family": "timm", "name": "resnet50"}, "weights": {"checkpoint": "w/a.pth"}}}
    del demo["fims"]
    experiment = demo["experiments"]["digitscenes"]
    experiment |= {"backbone": "theirs", "arms": {"linear-probe": {"c": [1.0]}}, "baseline": "linear-probe"}
    del experiment["fim"]
    return demo


def test_backbones_are_sorted_by_what_they_wait_for(demo):
    """DVC has a stage for each kind of wait: bank and probe, the bank of a head, nothing."""
    plan = plan_of(demo)
    needs = {"bank": "digitscenes-bank", "probe": "digitscenes"}
    assert (plan["pretrained"], plan["completed"], plan["imported"]) == ({"tiny-resnet-1": needs, "tiny-resnet-2": needs}, {}, {})
    plan = plan_of(_imported(demo))
    assert (plan["pretrained"], plan["completed"], plan["imported"]) == ({}, {}, {"theirs": {}})
    demo["backbones"]["theirs"]["head"] = {"bank": "digitscenes-bank", "from": "trained"}
    plan = plan_of(demo)
    assert (plan["completed"], plan["imported"]) == ({"theirs": {"bank": "digitscenes-bank"}}, {})
    assert plan["backbones"]["theirs"]["bank"] == "digitscenes-bank"


def test_whose_weights_they_are_is_printed(demo):
    """Every table of an imported backbone names its source: in the user's words, or by its file."""
    note = demo["experiments"]["digitscenes"]["note"]
    plan = plan_of(_imported(demo))
    assert plan["backbones"]["theirs"]["weights"]["source"] == "a.pth"
    assert plan["experiments"]["digitscenes"]["note"] == f"{note} Backbone: a.pth."
    demo["backbones"]["theirs"]["weights"] = {"timm": True}
    assert plan_of(demo)["backbones"]["theirs"]["weights"]["source"] == "timm resnet50"
    demo["backbones"]["theirs"]["weights"] = {"timm": True, "source": "the ResNet-50 of 2021, of this and that."}
    assert plan_of(demo)["experiments"]["digitscenes"]["note"].endswith(" Backbone: the ResNet-50 of 2021, of this and that.")


def test_inputs_of_timms_models_are_left_to_timm(demo):
    """No plan can know them without timm; 0.5 and 0.25 are those of the tiny networks only."""
    own = plan_of(demo)["backbones"]["tiny-resnet-1"]
    assert (own["mean"], own["std"]) == ([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])
    theirs = plan_of(_imported(demo))["backbones"]["theirs"]
    assert (theirs["mean"], theirs["std"]) == (None, None)


def test_experiments_on_the_same_two_have_titles_of_their_own(demo):
    """Otherwise the list of tables names two of them alike, and a reader takes one for the other."""
    del demo["experiments"]["digitscenes"]["title"]
    plain = plan_of(demo)["experiments"]
    assert plain["digitscenes"]["title"] == "digitscenes, tiny-resnet"
    demo["experiments"]["longer"] = demo["experiments"]["digitscenes"]
    titles = [experiment["title"] for experiment in plan_of(demo)["experiments"].values()]
    assert titles == ["digitscenes: digitscenes, tiny-resnet", "longer: digitscenes, tiny-resnet"]
