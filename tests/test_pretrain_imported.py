"""Imported backbones with an SSL loss: heads of the checkpoint or trained here, the centre, and the Fisher measured with them."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "backbones"))
from published import dino_loss, full_checkpoint, head_logits, resnet_head, vit_head

from anchored.backbones.build import seeded
from anchored.backbones.checkpoint import load_anchor, load_tensors, network
from anchored.backbones.features import normalise
from anchored.backbones.heads import dino_head
from anchored.data.recipes import view_maker
from anchored.data.store import open_store
from anchored.errors import ConfigError, InputError, NumericalError
from anchored.fisher import load_fisher
from anchored.fisher.measurement import Measurement
from anchored.fisher.step import fim
from anchored.paths import Paths
from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.plan.naming import derive_seed
from anchored.pretrain import pretrain
from anchored.record import planned_step
from anchored.release.step import fim_release
from anchored.transfer.retention import Retention
from anchored.transfer.settings import TransferStudy

CPU = torch.device("cpu")
VIT = {"family": "tiny-vit", "image": 20, "patch": 4, "width": 16, "depth": 2, "heads": 2}
RESNET = {"family": "tiny-resnet", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}
OF_VIT = {"layers": 3, "hidden": 24, "batch_norm": False, "bottleneck": 8, "prototypes": 30}
OF_RESNET = {"layers": 2, "hidden": 24, "bottleneck": 8, "prototypes": 30, "normalised": False}
VIEWS = {"local_crops": 2}
KINDS = {"vit": (VIT, OF_VIT, vit_head), "resnet": (RESNET, OF_RESNET, resnet_head)}


def plan_of(
    architecture: dict, head: dict, *, anchor: str = "student", checkpoint: str = "full.pth", fim: dict | None = None
) -> Any:
    values = {
        "name": "x", "seed": 3,
        "datasets": {"scenes": {"reader": "digitscenes"}, "bank": {"reader": "digitscenes-bank", "scenes": "scenes"}},
        "backbones": {"theirs": {
            "architecture": architecture, "anchor": anchor, "weights": {"checkpoint": checkpoint},
            "head": {"bank": "bank", "views": VIEWS, "images": 20, "batch": 16} | head,
        }},
        "fims": {"theirs-fim": {"backbone": "theirs", "bank": "bank", "images": 12, "batch": 5, "views": VIEWS} | (fim or {})},
        "experiments": {},
    }  # fmt: skip
    return expand(Config.model_validate(values))


@pytest.fixture
def study(mini: Paths, tmp_path: Path) -> Paths:
    """A folder with the prepared bank of the miniature study."""
    shutil.copytree(mini.results / "data", tmp_path / "results/data")
    return Paths(tmp_path)


def save_full(paths: Paths, kind: str, **more: Any) -> dict[str, dict[str, torch.Tensor]]:
    """A full checkpoint `full.pth` and its student's backbone `trunk.pth`; returns the four states."""
    architecture, _, make = KINDS[kind]
    states = {name: seeded(architecture, seed).state_dict() for name, seed in {"student": 1, "teacher": 2}.items()}
    torch.save(states["student"], paths.root / "trunk.pth")
    states |= {"student_head": make(16, seed=3), "teacher_head": make(16, seed=4)}
    torch.save(full_checkpoint(*states.values(), **more), paths.root / "full.pth")
    return states


def measured(paths: Paths) -> dict[str, Any]:
    return json.loads((paths.backbone("theirs") / "record.json").read_text())["measurements"]


def slow_centre(states, plan, paths: Paths, kind: str) -> torch.Tensor:
    """Image after image, view after view, the published head."""
    entry = plan["backbones"]["theirs"]
    teacher = seeded(KINDS[kind][0], 2).eval()
    bank = open_store(paths.data("bank"))
    maker = view_maker(bank, entry["head"]["views"] | {"local_crops": 0}, CPU)
    seed = derive_seed(entry["seed"], "centre")
    logits = []
    for row in np.random.default_rng([seed]).permutation(len(bank.packed))[:20]:
        large, _ = maker(np.array([row]), maker.draw(np.random.default_rng([seed, int(row)]), np.array([row])))
        for view in normalise(large, entry)[0]:
            with torch.no_grad():
                logits.append(head_logits(states["teacher_head"], teacher(view[None]))[0])
    return torch.stack(logits).mean(0)


@pytest.mark.parametrize("kind", KINDS)
def test_centre_that_the_file_lacks_is_estimated(study, kind):
    """The released checkpoints have none. Without it the targets collapse onto the prototypes that are large for every image."""
    states = save_full(study, kind)
    plan = plan_of(KINDS[kind][0], {"from": "checkpoint", "dino": KINDS[kind][1]})
    pretrain(plan, "theirs", study)
    first = load_tensors(study.backbone("theirs") / "model.safetensors", made_by="x")["centre"]
    torch.testing.assert_close(first, slow_centre(states, plan, study, kind), rtol=1e-4, atol=1e-5)
    assert measured(study)["centre"] == {"from": "bank", "images": 20}
    plan["backbones"]["theirs"]["head"]["batch"] = 7
    pretrain(plan, "theirs", study)
    again = load_tensors(study.backbone("theirs") / "model.safetensors", made_by="x")["centre"]
    torch.testing.assert_close(again, first, rtol=1e-5, atol=1e-6)


def test_rerun_is_bit_identical(study):
    """The FIM and every cell carry the digest of these bytes."""
    save_full(study, "vit")
    path = study.backbone("theirs") / "model.safetensors"
    for file, head in {"full": {"from": "checkpoint"}, "trunk": {"from": "trained", "epochs": 2}}.items():
        plan = plan_of(VIT, head | {"dino": OF_VIT}, checkpoint=f"{file}.pth")
        pretrain(plan, "theirs", study)
        before = path.read_bytes()
        torch.rand(11)
        pretrain(plan, "theirs", study, force=True)
        assert path.read_bytes() == before


def test_centre_needs_its_images(study):
    """Fewer than asked for would be another centre than the record says."""
    save_full(study, "vit")
    plan = plan_of(VIT, {"from": "checkpoint", "dino": OF_VIT, "images": 49})
    with pytest.raises(ConfigError, match=r"backbones\.theirs\.head\.images is 49, the bank 'bank' has 48"):
        pretrain(plan, "theirs", study)
    save_full(study, "vit", dino_loss={"center": torch.ones(1, 30)})
    pretrain(plan, "theirs", study)
    assert measured(study)["centre"] == {"from": "checkpoint"}


@pytest.mark.parametrize("anchor", ["student", "teacher"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_published_one(study, kind, anchor):
    """From the file to the loss of an image: trunk, head, centre and temperatures, against the published formulas."""
    centre = torch.randn(1, 30, generator=torch.Generator().manual_seed(9)) / 3
    states = save_full(study, kind, dino_loss={"center": centre})
    dino = KINDS[kind][1] | {"teacher_temperature": 0.07}
    plan = plan_of(KINDS[kind][0], {"from": "checkpoint", "dino": dino}, anchor=anchor)
    pretrain(plan, "theirs", study)
    measurement = Measurement(plan, "theirs-fim", study, CPU)
    batch = next(measurement.batches())
    with torch.no_grad():
        found = measurement.loss(measurement.model, batch)
        student, teacher = (seeded(KINDS[kind][0], {"student": 1, "teacher": 2}[which]).eval() for which in (anchor, "teacher"))
        views = [batch["large"][:, 0], batch["large"][:, 1], batch["small"][:, 0], batch["small"][:, 1]]
        expected = dino_loss(
            [head_logits(states[f"{anchor}_head"], student(view)) for view in views],
            [head_logits(states["teacher_head"], teacher(view)) for view in views[:2]],
            centre[0], student_temperature=0.1, teacher_temperature=0.07,
        )  # fmt: skip
    assert found.shape == (5,)
    torch.testing.assert_close(found.mean(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ["teacher", "sampled"])
@pytest.mark.parametrize("origin", ["checkpoint", "trained"])
@pytest.mark.parametrize("kind", KINDS)
def test_fisher_of_an_imported_backbone(study, kind, origin, estimator):
    """Batched and image by image through plain autograd."""
    save_full(study, kind)
    head = {"from": origin, "dino": KINDS[kind][1], "epochs": 1}
    file = {"checkpoint": "full.pth", "trained": "trunk.pth"}[origin]
    plan = plan_of(KINDS[kind][0], head, checkpoint=file, fim={"estimator": estimator})
    pretrain(plan, "theirs", study)
    fim(plan, "theirs-fim", study)
    found = load_fisher(study.fim("theirs-fim") / "fim.safetensors")
    expected = Measurement(plan, "theirs-fim", study, CPU).fisher(backend="loop")
    assert set(found) == set(expected)
    assert sum(float(value.sum()) for value in found.values()) > 0
    for name in expected:
        torch.testing.assert_close(found[name].float(), expected[name].float(), rtol=1e-3, atol=1e-5 * float(expected[name].max()))


def test_trained_head_has_learnt_and_the_backbone_is_as_it_was(study):
    """The anchor is the imported network, bit for bit; only the heads learn. The loss of training follows a moving teacher, so what
    was learnt shows against the teacher of the end: the trained head agrees with it better than the fresh one.
    """
    states = save_full(study, "resnet")
    dino = {"hidden": 32, "bottleneck": 16, "prototypes": 24, "teacher_momentum": 0.9}
    plan = plan_of(RESNET, {"from": "trained", "dino": dino, "epochs": 12, "lr": 3e-3}, checkpoint="trunk.pth")
    pretrain(plan, "theirs", study)
    entry = plan["backbones"]["theirs"]
    tensors = load_tensors(study.backbone("theirs") / "model.safetensors", made_by="x")
    assert {name.split(".")[0] for name in tensors} == {"student", "student_head", "teacher_head", "centre"}
    trunk = network(tensors, "student")
    assert trunk.keys() == states["student"].keys()
    assert all(torch.equal(trunk[name], value) for name, value in states["student"].items())
    record = measured(study)["head"]
    assert (len(record["loss"]), record["steps"], record["images"]) == (12, 36, 48)

    bank = open_store(study.data("bank"))
    maker = view_maker(bank, entry["head"]["views"], CPU)
    rows = np.arange(48)
    large, small = (normalise(part, entry) for part in maker(rows, maker.draw(np.random.default_rng(5), rows)))
    model = seeded(RESNET, 1).eval()
    seed = derive_seed(entry["seed"], "head")
    heads = {which: dino_head(16, entry["head"]["dino"], seed) for which in ("fresh", "student", "teacher")}
    for which in ("student", "teacher"):
        heads[which].load_state_dict(network(tensors, f"{which}_head"))
    with torch.no_grad():
        seen = [model(view) for part in (large, small) for view in part.unbind(1)]
        targets = [heads["teacher"](features).logits for features in seen[:2]]
        losses = {
            which: dino_loss(
                [heads[which](features).logits for features in seen], targets, tensors["centre"],
                student_temperature=0.1, teacher_temperature=0.04,
            ).item()
            for which in ("fresh", "student")
        }  # fmt: skip
    assert losses["student"] < losses["fresh"] - 0.2, losses
    model, _ = load_anchor(study.backbone("theirs") / "model.safetensors", entry, made_by="x")
    assert torch.equal(model.conv1.weight, states["student"]["conv1.weight"])


def test_trained_head_on_a_full_checkpoint(study):
    """Its head would be the student's, its targets those of another backbone that the head has never seen."""
    save_full(study, "vit")
    with pytest.raises(ConfigError, match=r"backbones\.theirs\.head\.from is trained, which needs one network"):
        pretrain(plan_of(VIT, {"from": "trained", "dino": OF_VIT}), "theirs", study)


def test_diverged_head_is_a_sentence(study):
    """Exit code 4, the key to change, and no file."""
    save_full(study, "vit")
    head = {"from": "trained", "dino": OF_VIT | {"normalised": False}, "lr": 1e30, "clip": 1e30}
    plan = plan_of(VIT, head, checkpoint="trunk.pth")
    with pytest.raises(NumericalError, match="pretrain theirs: the loss is not finite in epoch 1") as caught:
        pretrain(plan, "theirs", study)
    assert "lower backbones.theirs.head.lr" in caught.value.hint
    assert not (study.backbone("theirs") / "model.safetensors").exists()


def test_import_without_a_head(study):
    """As it was: one network, no bank, and no FIM; the plan already says so."""
    save_full(study, "vit")
    values = {
        "name": "x", "datasets": {"scenes": {"reader": "digitscenes"}, "bank": {"reader": "digitscenes-bank", "scenes": "scenes"}},
        "backbones": {"theirs": {
            "architecture": VIT, "anchor": "teacher", "weights": {"checkpoint": "full.pth", "source": "DINO"},
        }},
        "experiments": {},
    }  # fmt: skip
    plan = expand(Config.model_validate(values))
    assert (plan["imported"], plan["completed"]) == ({"theirs": {}}, {})
    pretrain(plan, "theirs", study)
    tensors = load_tensors(study.backbone("theirs") / "model.safetensors", made_by="x")
    assert {name.split(".")[0] for name in tensors} == {"student", "teacher"}
    found = measured(study)
    assert (found["source"], found["layout"]) == ({"name": "DINO"}, "DINO full checkpoint")
    values["fims"] = {"f": {"backbone": "theirs", "bank": "bank"}}
    with pytest.raises(ValueError, match=r"fims\.f\.backbone: 'theirs' is imported without a head, so it has no dino loss"):
        Config.model_validate(values)


def test_views_that_are_no_multiple_of_the_patch(study):
    """Patches of 14 pixels do not tile DINO's 96; the nearest size that they tile is named."""
    import safetensors.torch

    safetensors.torch.save_file(seeded(VIT, 1).state_dict(), study.root / "full.safetensors")
    dino = {"recipe": "dino", "global_size": 20, "local_size": 14, "local_crops": 1}
    with pytest.raises(ConfigError, match=r"backbones\.theirs\.head\.views\.local_size is 14, .* the patch size 4") as caught:
        pretrain(plan_of(VIT, {"from": "trained", "views": dino}, checkpoint="full.safetensors"), "theirs", study)
    assert caught.value.hint == "use 16."
    plan = plan_of(VIT, {"from": "trained", "epochs": 1}, checkpoint="full.safetensors", fim={"views": dino})
    pretrain(plan, "theirs", study)
    with pytest.raises(ConfigError, match=r"fims\.theirs-fim\.views\.local_size is 14"):
        fim(plan, "theirs-fim", study)


def test_retention_needs_a_dataset_of_the_backbones_own_domain(study):
    """k-NN is measured on the labelled dataset that a pre-training names; an import names none."""
    save_full(study, "vit")
    plan = plan_of(VIT, {"from": "checkpoint", "dino": OF_VIT})
    pretrain(plan, "theirs", study)
    with pytest.raises(ConfigError, match="backbone 'theirs' is imported: no labelled dataset of its own domain is known"):
        Retention(plan, "theirs-fim", study, TransferStudy(held_out=6), CPU)


def test_description_beside_the_file_is_an_input(study):
    """Its words stand in the record: a record with the old ones is out of date."""
    save_full(study, "vit")
    plan = plan_of(VIT, {"from": "checkpoint", "dino": OF_VIT})
    pretrain(plan, "theirs", study)
    assert planned_step(plan, "backbones", "theirs", study).is_up_to_date()
    said = {"name": "Theirs", "version": "1", "licences": ["MIT"], "note": "possibly fine-tuned"}
    (study.root / "full.pth.source.json").write_text(json.dumps({"schema": 1, **said}))
    assert not planned_step(plan, "backbones", "theirs", study).is_up_to_date()
    pretrain(plan, "theirs", study)
    assert measured(study)["source"] == {"name": "full.pth", "file": said}
    record = json.loads((study.backbone("theirs") / "record.json").read_text())
    assert {"full.pth", "full.pth.source.json", "results/data/bank/manifest.json"} == set(record["inputs"])


def test_cards_say_whose_weights_were_measured(study, monkeypatch, tmp_path):
    """A FIM is passed on without its plan: what the weights may be, and what their licence allows, must stand beside it."""
    monkeypatch.setattr("anchored.release.step.draw", lambda _: (b"<svg/>", b"\x89PNG"))
    save_full(study, "vit")
    plan = plan_of(VIT, {"from": "checkpoint", "dino": OF_VIT})
    pretrain(plan, "theirs", study)
    fim(plan, "theirs-fim", study)
    card = study.fim("theirs-fim") / "card.md"
    assert re.search(r"^\| weights +\| full\.pth +\|$", card.read_text(), re.MULTILINE)
    assert "weights note" not in card.read_text()
    said = {"name": "Theirs", "version": "2", "licences": ["MIT", "Apache-2.0"], "note": "possibly fine-tuned\nfor a | b"}
    (study.root / "full.pth.source.json").write_text(json.dumps({"schema": 1, **said}))
    pretrain(plan, "theirs", study)
    fim(plan, "theirs-fim", study, force=True)
    fim_release(plan, "theirs-fim", tmp_path / "release", study)
    expected = {"weights": "full.pth", "weights file": "Theirs, version 2", "weights licences": "MIT; Apache-2.0",
                "weights note": r"possibly fine-tuned for a \| b"}  # fmt: skip
    for text in (card.read_text(), (tmp_path / "release" / "README.md").read_text()):
        for key, value in expected.items():
            assert re.search(rf"^\| {key} +\| {re.escape(value)} +\|$", text, re.MULTILINE), key
    assert load_fisher(study.fim("theirs-fim") / "fim.safetensors").metadata["weights_note"] == "possibly fine-tuned for a | b"


def test_file_that_is_missing(study):
    """The path of the plan, whole."""
    plan = plan_of(VIT, {"from": "checkpoint", "dino": OF_VIT}, checkpoint="weights/none.pth")
    with pytest.raises(InputError, match=r"weights/none\.pth is missing"):
        pretrain(plan, "theirs", study)
