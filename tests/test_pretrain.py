"""Pre-training: reproducible to the bit, its formulas, its record, its failures."""

import copy
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from anchored import distillation
from anchored.backbones.build import seeded
from anchored.backbones.checkpoint import load_anchor, load_tensors, network
from anchored.backbones.features import features, to_input
from anchored.data.store import open_store
from anchored.distillation import Networks, _optimizer, _rate, _step
from anchored.errors import NumericalError
from anchored.objectives.dino import dino_losses
from anchored.objectives.infonce import infonce_losses
from anchored.paths import Paths
from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.pretrain import pretrain
from anchored.probe import probe

CPU = torch.device("cpu")


@pytest.fixture
def fresh(mini: Paths, tmp_path: Path) -> Paths:
    """A folder with the prepared data only."""
    shutil.copytree(mini.results / "data", tmp_path / "results/data")
    return Paths(tmp_path)


def tensors_of(paths: Paths, name: str) -> dict[str, torch.Tensor]:
    return load_tensors(paths.backbone(name) / "model.safetensors", made_by="x")


@pytest.mark.parametrize("name", ["resnet-1", "vit"])
def test_rerun_is_bit_identical(mini, mini_plan, fresh, name):
    """The FIM and every cell carry the digest of these bytes; one unseeded generator would make them foreign."""
    torch.rand(11)
    np.random.default_rng().random(3)
    pretrain(mini_plan, name, fresh)
    path = Path("results/backbones") / name / "model.safetensors"
    assert (fresh.root / path).read_bytes() == (mini.root / path).read_bytes()


@pytest.mark.parametrize("name", ["resnet-1", "vit"])
def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(change_plan, fresh, monkeypatch, tmp_path, name):
    """On a cluster, pre-emption is the rule; a backbone may take days."""
    plan, whole = change_plan({("backbones", name, "pretraining", "epochs"): 3}), Paths(tmp_path / "whole")
    shutil.copytree(fresh.results, whole.results)
    pretrain(plan, name, whole)
    recorded = json.loads((whole.backbone(name) / "record.json").read_text())["measurements"]
    epoch, done = recorded["steps"] // 3, []
    original = distillation._step

    def step(*arguments):
        done.append(arguments)
        if len(done) == epoch + 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(distillation, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        pretrain(plan, name, fresh)
    pretrain(plan, name, fresh)
    assert len(done) == (epoch + 2) + 2 * epoch
    path = Path("results/backbones") / name / "model.safetensors"
    assert (fresh.root / path).read_bytes() == (whole.root / path).read_bytes()
    assert json.loads((fresh.backbone(name) / "record.json").read_text())["measurements"]["loss"] == recorded["loss"]
    assert not fresh.work(f"pretrain-{name}").exists()


def test_a_state_that_is_torn_or_of_another_training_is_not_continued(mini_plan, fresh, mini):
    state = fresh.work("pretrain-resnet-1") / "state.pt"
    state.parent.mkdir(parents=True)
    for content in (b"torn", None):
        if content is None:
            torch.save({"key": "of another"}, state)
        else:
            state.write_bytes(content)
        pretrain(mini_plan, "resnet-1", fresh)
        path = Path("results/backbones/resnet-1/model.safetensors")
        assert (fresh.root / path).read_bytes() == (mini.root / path).read_bytes()
        shutil.rmtree(fresh.backbone("resnet-1"))
        state.parent.mkdir(parents=True)


def test_copies_differ(mini):
    """Copies are the independent repetitions of the study; equal ones would halve every interval for nothing."""
    first, second = (network(tensors_of(mini, name), "student") for name in ("resnet-1", "resnet-2"))
    assert not any(torch.equal(first[name], second[name]) for name in first if name.endswith("conv1.weight"))


def test_training_moves_student_and_teacher(mini, mini_plan):
    """A frozen optimiser would pass every test of shapes."""
    tensors = tensors_of(mini, "resnet-1")
    from anchored.plan.naming import derive_seed

    entry = mini_plan["backbones"]["resnet-1"]
    start = seeded(entry["architecture"], derive_seed(entry["seed"], "weights")).state_dict()
    student, teacher = network(tensors, "student"), network(tensors, "teacher")
    for name in ("conv1.weight", "layer4.0.conv2.weight"):
        assert not torch.equal(student[name], start[name])
        assert (teacher[name] - start[name]).norm() < (student[name] - start[name]).norm()
        assert not torch.equal(teacher[name], start[name])
    assert tensors["centre"].abs().sum() > 0


def test_teacher_follows_with_the_documented_momentum(fresh, change_plan, monkeypatch):
    """m(t) = 1 - (1 - m0) (1 + cos(pi t)) / 2, from m0 to 1; the teacher is m * teacher + (1 - m) * student."""
    momenta = []
    original = Networks.follow

    def watched(self, momentum):
        before = [parameter.clone() for parameter in (*self.teacher.parameters(), *self.teacher_head.parameters())]
        original(self, momentum)
        after = [*self.teacher.parameters(), *self.teacher_head.parameters()]
        for old, new, student in zip(before, after, self.parameters(), strict=True):
            torch.testing.assert_close(new, momentum * old + (1 - momentum) * student, rtol=1e-5, atol=1e-7)
        momenta.append(momentum)

    monkeypatch.setattr(Networks, "follow", watched)
    plan = change_plan({("backbones", "resnet-1", "pretraining", "dino", "teacher_momentum"): 0.9})
    pretrain(plan, "resnet-1", fresh)
    steps = 2 * 3  # two epochs of 48 images in batches of 16
    expected = [1 - 0.1 * (1 + math.cos(math.pi * step / (steps - 1))) / 2 for step in range(steps)]
    assert momenta == pytest.approx(expected, abs=1e-12)
    assert (momenta[0], momenta[-1]) == pytest.approx((0.9, 1.0))


def test_loss_is_the_documented_sum(mini_plan):
    """L = w_dino DINO + w(t) InfoNCE on the large crops, the teacher in train mode with its own batch statistics."""
    entry = copy.deepcopy(mini_plan["backbones"]["resnet-1"])
    settings = entry["pretraining"]
    settings["dino"]["weight"], settings["infonce"]["weight"] = 0.7, [2.0, 1.0]
    networks = Networks.create(entry, CPU)
    views = [torch.randn(6, 2, 3, 20, 20, generator=torch.Generator().manual_seed(1)),
             torch.randn(6, 3, 3, 12, 12, generator=torch.Generator().manual_seed(2))]  # fmt: skip
    same = copy.deepcopy(networks)
    with torch.no_grad():
        large = same.student_head(same.student(views[0].flatten(0, 1)))
        small = same.student_head(same.student(views[1].flatten(0, 1)))
        student = torch.cat([large.logits.unflatten(0, (6, 2)), small.logits.unflatten(0, (6, 3))], dim=1)
        teacher = same.teacher_head(same.teacher(views[0].flatten(0, 1))).logits.unflatten(0, (6, 2))
        dino = dino_losses(student, teacher, same.centre, student_temperature=0.1, teacher_temperature=0.04)
        pair = large.bottleneck.unflatten(0, (6, 2))
        expected = 0.7 * dino.mean() + 1.75 * infonce_losses(pair[:, 0], pair[:, 1], temperature=0.2).mean()
    assert networks.teacher.training
    found = _step(networks, views, _optimizer(networks, settings), settings, 0.25)
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_vectors_are_not_decayed(mini_plan):
    """Decaying the scales of norms shrinks features to zero."""
    entry = mini_plan["backbones"]["resnet-1"]
    networks = Networks.create(entry, CPU)
    decayed, free = _optimizer(networks, entry["pretraining"]).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.04, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(networks.parameters())


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 1.0])
@pytest.mark.parametrize("total", [1, 7, 100])
def test_learning_rate_rises_and_falls(total, warmup):
    """A first step at rate 0 trains nothing; a rate above the peak diverges."""
    rates = [_rate(step, total, warmup) for step in range(total)]
    peak = int(np.argmax(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: peak + 1] == sorted(set(rates[: peak + 1]))
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert peak <= math.ceil(warmup * total)


def test_record_has_the_training_and_its_probes(mini):
    """The report shows whether a backbone knows anything: random, student and teacher, linear and k-NN."""
    record = json.loads((mini.backbone("resnet-1") / "record.json").read_text())
    measured = record["measurements"]
    assert len(measured["loss"]) == 2
    assert (measured["steps"], measured["images"]) == (6, 48)
    assert measured["probe"].keys() == {"random", "student", "teacher"}
    for probes in measured["probe"].values():
        assert probes.keys() == {"linear", "knn"}
        assert all(0 <= probes[kind]["worst_group"] <= probes[kind]["average"] <= 1 for kind in probes)
    assert record["device"] in ("cpu", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu")
    assert set(record["inputs"]) == {"results/data/bank/manifest.json", "results/data/scenes/manifest.json"}


def test_probes_are_those_of_scikit_learn(mini, mini_plan):
    """The record's numbers again from the stored weights, with scikit-learn called directly."""
    entry = mini_plan["backbones"]["resnet-1"]
    model, _ = load_anchor(mini.backbone("resnet-1") / "model.safetensors", entry, made_by="x")
    store = open_store(mini.data("scenes"))
    rows = {"balanced": store.rows("balanced", 0), "val": store.rows("val", 0)}
    known = {split: features(model, to_input(store.layer("image")[chosen], entry, CPU)) for split, chosen in rows.items()}
    y, labels = store.column("y", rows["balanced"]), store.column("y", rows["val"])
    groups = store.column("group", rows["val"])
    scaler = StandardScaler().fit(known["balanced"])
    linear = LogisticRegression(C=0.1, max_iter=2000).fit(scaler.transform(known["balanced"]), y)
    neighbours = KNeighborsClassifier(20, metric="cosine").fit(known["balanced"], y)
    expected = {}
    for name, hits in {
        "linear": linear.predict(scaler.transform(known["val"])) == labels, "knn": neighbours.predict(known["val"]) == labels,
    }.items():  # fmt: skip
        worst = min(hits[groups == group].mean() for group in range(4))
        expected[name] = {"average": pytest.approx(hits.mean(), abs=1e-6), "worst_group": pytest.approx(worst, abs=1e-6)}
    record = json.loads((mini.backbone("resnet-1") / "record.json").read_text())
    assert record["measurements"]["probe"]["student"] == expected


def test_probe_of_fewer_images_than_neighbours():
    """A balanced split of 8 images once failed after the whole pre-training."""
    rng = np.random.default_rng(0)
    inputs, y = rng.normal(size=(8, 4)).astype(np.float32), np.arange(8) % 2
    found = probe(inputs, y, inputs, y, y)
    assert found["knn"]["average"] == 0.5


@pytest.mark.parametrize("name", ["resnet-1", "vit"])
def test_local_crops_train(fresh, change_plan, name, monkeypatch):
    """Small crops have another size: positions of a ViT and strides of a ResNet must follow."""
    seen = set()
    original = sys.modules["anchored.distillation"]._features

    def watched(trained, views):
        seen.add(tuple(views.shape[1:]))
        return original(trained, views)

    monkeypatch.setattr("anchored.distillation._features", watched)
    settings = ("backbones", name, "pretraining")
    pretrain(change_plan({(*settings, "views", "local_crops"): 3, (*settings, "epochs"): 1}), name, fresh)
    assert seen == {(2, 3, 20, 20), (3, 3, 12, 12)}
    record = json.loads((fresh.backbone(name) / "record.json").read_text())
    assert all(map(math.isfinite, record["measurements"]["loss"]))


def test_divergence_is_a_sentence_and_leaves_nothing(fresh, change_plan):
    """Exit code 4, and no checkpoint that a later step would take for a backbone."""
    plan = change_plan({("backbones", "resnet-1", "pretraining", "lr"): 1e30})
    with pytest.raises(NumericalError, match="pretrain resnet-1: the loss is not finite in epoch 1") as caught:
        pretrain(plan, "resnet-1", fresh)
    assert caught.value.exit_code == 4
    assert "lower backbones.resnet.pretraining.lr" in caught.value.hint
    assert list(fresh.results.glob("backbones/**/*.*")) == []


def test_import_makes_a_backbone(mini, tmp_path):
    """An imported file becomes the same artefact as a pre-training, so that every later step is the same."""
    weights = {name: value.contiguous() for name, value in network(tensors_of(mini, "resnet-1"), "student").items()}
    safetensors.torch.save_file(weights, tmp_path / "theirs.safetensors")
    plan = expand(Config.model_validate({
        "name": "x",
        "datasets": {"scenes": {"reader": "digitscenes"}},
        "backbones": {"theirs": {
            "architecture": {"family": "tiny-resnet", "channels": [8, 8, 16, 16]}, "weights": {"checkpoint": "theirs.safetensors"},
        }},
        "fims": {}, "experiments": {},
    }))  # fmt: skip
    paths = Paths(tmp_path)
    pretrain(plan, "theirs", paths)
    model, tensors = load_anchor(paths.backbone("theirs") / "model.safetensors", plan["backbones"]["theirs"], made_by="x")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(name.startswith("student.") for name in tensors)


def test_network_of_a_teacher_anchor_is_the_teacher(mini, mini_plan):
    """`anchor: teacher` once gave the student: both have the same shapes."""
    entry = mini_plan["backbones"]["vit"]
    assert entry["anchor"] == "teacher"
    model, tensors = load_anchor(mini.backbone("vit") / "model.safetensors", entry, made_by="x")
    teacher, student = network(tensors, "teacher"), network(tensors, "student")
    assert all(torch.equal(value, teacher[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(teacher[name], student[name]) for name in teacher)
