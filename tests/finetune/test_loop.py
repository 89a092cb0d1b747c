"""Training a cell: against a plain loop with autograd, and what the arms share and do not share."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anchored.backbones.build import stage_parameters
from anchored.backbones.features import to_input
from anchored.backbones.split import split
from anchored.data.store import open_store
from anchored.errors import ConfigError, EnvironmentFailure, NumericalError
from anchored.finetune import fixed_stages, loop
from anchored.finetune.fixed_stages import FixedStages
from anchored.finetune.loop import Classifier, train_cell
from anchored.finetune.predictions import evaluation_rows
from anchored.finetune.state import CellState
from anchored.finetune.strategies import make_anchor
from anchored.fisher import condition, load_fisher
from anchored.plan.naming import derive_seed
from anchored.plan.preprocessing import augmentation

ARMS = {
    "erm": "res-resnet-1-erm-lr1e-3-r0",
    "freeze": "res-resnet-1-freeze-k1-lr1e-3-r0",
    "l2sp": "res-resnet-1-l2sp-lr1e-3-s3e1-r0",
    "ewc": "res-resnet-1-ewc-lr1e-3-s3e1-r0",
    "ewc-shuffled": "res-resnet-1-ewc-shuffled-lr1e-3-s3e1-r0",
}
TRAINED = [*ARMS, "vit"]


def reference(cell, material, epochs: int, optimizer: str, fisher) -> dict[str, torch.Tensor]:
    """The same training with nothing clever: whole images through autograd, the penalty as a term of the loss."""
    store, entry = material.store, material.backbone
    rows = store.rows("train", cell["draw"])
    images = torch.from_numpy(store.layer("image")[rows].astype(np.float32)).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(entry["mean"]).view(3, 1, 1)) / torch.tensor(entry["std"]).view(3, 1, 1)
    labels = torch.from_numpy(store.column("y", rows))
    backbone = material.make_backbone()
    head = torch.nn.Linear(backbone.num_features, 2)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    start = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    groups = [{"params": list(backbone.parameters())}, {"params": list(head.parameters())}]
    if optimizer == "sgd":
        made = torch.optim.SGD(groups, lr=1.0, momentum=0.9, foreach=False)
    else:
        made = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.0, foreach=False)
    size = cell["training"]["batch"]
    steps = math.ceil(len(rows) / size)
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([derive_seed(cell["seed"], "order"), epoch]).permutation(len(rows))
        for step in range(steps):
            chosen = torch.from_numpy(order[step * size : (step + 1) * size])
            factor = (1 + math.cos(math.pi * ((epoch - 1) * steps + step) / (epochs * steps))) / 2
            made.param_groups[0]["lr"] = cell["hyper"]["lr"] * factor
            made.param_groups[1]["lr"] = cell["training"]["head_lr"] * factor
            penalty = sum((fisher[name] * (p - start[name]) ** 2).sum() for name, p in backbone.named_parameters())
            task = F.cross_entropy(head(backbone(images[chosen])), labels[chosen])
            loss = task + cell["hyper"].get("strength", 0.0) / 2 * penalty
            made.zero_grad()
            loss.backward()
            made.step()
    return {f"backbone.{name}": value for name, value in backbone.state_dict().items()} | {
        f"head.{name}": value for name, value in head.state_dict().items()
    }


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("arm", ["erm", "l2sp", "ewc"])
def test_training_equals_a_plain_loop(mini, mini_plan, train, material, arm, optimizer):
    """Fused optimisers, fused penalties, memory formats and rates: all of it must be the textbook's update."""
    name = ARMS[arm]
    cell = mini_plan["cells"][name]
    raw = load_fisher(mini.fim("fim-1") / "fim.safetensors")
    fisher = condition(raw, "normalise") if arm == "ewc" else {key: torch.ones_like(value) for key, value in raw.items()}
    found = train(name, training={"optimizer": optimizer}).network
    expected = reference(cell, material(name), 2, optimizer, fisher)
    start = material(name).make_backbone().state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value.is_floating_point():
            way = value - start.get(key.removeprefix("backbone."), 0)
            assert (found[key] - value).abs().max() <= 2e-3 * way.abs().max() + 1e-7, key


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("arm", ["erm", "vit"])
def test_training_lowers_the_loss(train, arm, optimizer):
    """Both optimisers learn on both families."""
    name = ARMS.get(arm, "vit-vit-erm-lr1e-2-r0")
    history = train(name, hyper={"lr": 1e-2}, training={"optimizer": optimizer, "epochs": 4, "batch": 16}).history
    assert history[-1]["train_loss"] < history[0]["train_loss"] < math.log(2) * 1.5


def test_head_starts_at_zero(material):
    """Predictions begin undecided, and the first backward pass reaches the head only: a random head shakes the backbone."""
    read = material(ARMS["erm"])
    model = Classifier(read.make_backbone(), 3)
    logits = model(torch.randn(4, 3, 20, 20))
    assert logits.shape == (4, 3)
    assert not logits.any()
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    assert not any(parameter.grad.any() for parameter in model.backbone.parameters())
    assert model.head.bias.grad.any()


@pytest.mark.parametrize("arm", ["erm", "l2sp", "ewc"])
def test_frozen_batch_norm_keeps_the_statistics_of_pretraining(train, material, arm):
    """The biased training split would move them towards the majority groups."""
    start = material(ARMS[arm]).make_backbone().state_dict()
    running = [key for key in start if "running" in key]
    assert running
    frozen = train(ARMS[arm]).network
    assert all(torch.equal(frozen[f"backbone.{key}"], start[key]) for key in running)
    assert not torch.equal(frozen["backbone.bn1.weight"], start["bn1.weight"]), "scales are parameters: they train"
    followed = train(ARMS[arm], training={"batch_norm": "train"}).network
    assert not any(torch.equal(followed[f"backbone.{key}"], start[key]) for key in running)


@pytest.mark.parametrize(("name", "stages"), [(ARMS["freeze"], (0, 1, 3)), ("vit-vit-erm-lr1e-2-r0", (0, 1))])
def test_freeze_leaves_exactly_the_frozen_parameters(train, material, name, stages):
    """Frozen ones keep every bit, all others move: a wrong prefix freezes too much and nobody sees it."""
    read = material(name)
    start = dict(read.make_backbone().named_parameters())
    for count in stages:
        if read.backbone["family"] == "resnet":
            frozen = ("conv1.", "bn1.", *(f"layer{number + 1}." for number in range(count)))
        else:
            frozen = ("cls_token", "pos_embed", "patch_embed", *(f"blocks.{number}." for number in range(count)))
        found = train(name, arm="freeze", hyper={"stages": count, "lr": 1e-2}).network
        kept = {key for key in start if torch.equal(found[f"backbone.{key}"], start[key])}
        assert kept == {key for key in start if key.startswith(frozen)}, count


def test_freezing_everything_is_refused(train):
    """Something has to train; the arm linear-probe is the one that freezes all."""
    with pytest.raises(ConfigError, match="freezes 4 stages, its backbone has 4") as caught:
        train(ARMS["freeze"], hyper={"stages": 4})
    assert "lower arms.freeze.stages, or training.frozen_stages" in caught.value.hint


def test_ewc_with_fisher_one_is_l2sp_bit_for_bit(train, mini):
    """The two arms may differ in nothing but F."""
    names = load_fisher(mini.fim("fim-1") / "fim.safetensors")
    ones = {key: torch.ones_like(value) for key, value in names.items()}
    plain = {"kind": "none", "value": None}
    ewc, l2sp = train(ARMS["ewc"], fisher=ones, conditioning=plain), train(ARMS["l2sp"])
    assert all(torch.equal(ewc.network[key], l2sp.network[key]) for key in l2sp.network)
    assert [line["penalty"] for line in ewc.history] == [line["penalty"] for line in l2sp.history]
    assert all(torch.equal(ewc.logits[key], l2sp.logits[key]) for key in l2sp.logits)


def test_strength_zero_is_erm_bit_for_bit(train):
    """The left end of a strength grid must be the baseline, not a neighbour of it."""
    ewc, erm = train(ARMS["ewc"], hyper={"strength": 0.0}), train(ARMS["erm"])
    assert all(torch.equal(ewc.network[key], erm.network[key]) for key in erm.network)


def weights_of(model, cell, raw) -> dict[str, torch.Tensor]:
    """F as the anchor uses it, seen from outside: the pull on a network whose every parameter moved by 1."""
    anchor = make_anchor(model, cell, raw)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
            parameter.grad = None
    anchor.add_gradient()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_shuffled_fisher_keeps_the_values_of_each_tensor(mini, mini_plan, material):
    """The control must differ in places only: same multiset in each tensor, the same for the same seed."""
    cell = mini_plan["cells"][ARMS["ewc-shuffled"]]
    raw = load_fisher(mini.fim("fim-1") / "fim.safetensors")
    expected = condition(raw, "normalise")
    fresh = material(ARMS["ewc"]).make_backbone
    cell = cell | {"hyper": {"lr": 1e-3, "strength": 1.0}}
    found, again = weights_of(fresh(), cell, raw), weights_of(fresh(), cell, raw)
    other = weights_of(fresh(), cell | {"seed": cell["seed"] + 1}, raw)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].flatten().sort().values, value.flatten().sort().values, rtol=1e-4, atol=1e-5)
        assert torch.equal(found[name], again[name])
    big = max(expected, key=lambda name: expected[name].numel())
    assert (found[big] - expected[big]).abs().max() > 0.1 * expected[big].max()
    assert not torch.equal(found[big], other[big])


def test_arms_of_a_replicate_see_the_same_batches(train, monkeypatch, mini_plan):
    """Paired comparison: any difference between arms is the arm's, not the luck of an order."""
    seen: list[bytes] = []
    original = loop.F.cross_entropy

    def watched(logits, labels):
        seen.append(labels.numpy().tobytes())
        return original(logits, labels)

    images: list[float] = []
    forward = Classifier.forward

    def counted(self, inputs):
        if self.training:
            images.append(inputs.double().sum().item())
        return forward(self, inputs)

    monkeypatch.setattr(loop.F, "cross_entropy", watched)
    monkeypatch.setattr(Classifier, "forward", counted)
    orders = {}
    for arm, name in {**ARMS, "other replicate": ARMS["erm"].replace("-r0", "-r1")}.items():
        seen.clear()
        images.clear()
        train(name)
        assert len(seen) == len(images) == 2 * 4
        assert images[:4] != images[4:], "both epochs have one order"
        orders[arm] = (tuple(seen), tuple(images))
    other = orders.pop("other replicate")
    assert len(set(orders.values())) == 1
    assert other not in orders.values()


def test_head_rate_is_independent_of_the_backbone_s(train, monkeypatch):
    """Tying the two gave EWC a gain of .056 out of .003; both follow one cosine from their own peak."""
    rates: list[tuple[float, ...]] = []
    original = torch.optim.AdamW.step

    def watched(self, *arguments, **options):
        rates.append(tuple(group["lr"] for group in self.param_groups))
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    steps = 2 * 4
    for lr in (1e-3, 1e-5):
        rates.clear()
        train(ARMS["erm"], hyper={"lr": lr})
        factors = [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
        assert [rate[0] for rate in rates] == pytest.approx([lr * factor for factor in factors])
        assert [rate[1] for rate in rates] == pytest.approx([1e-2 * factor for factor in factors])
    rates.clear()
    train(ARMS["erm"], training={"schedule": "constant"})
    assert rates == [(1e-3, 1e-2)] * steps


def test_history_has_the_measures_of_every_epoch(train, mini, mini_plan):
    """Penalty, ratio, displacement and accuracies are what the figures draw; checked against the stored weights and logits."""
    state = train(ARMS["l2sp"])
    assert [line["epoch"] for line in state.history] == [1, 2]
    last = state.history[-1]
    from anchored.backbones.checkpoint import load_anchor

    entry = mini_plan["backbones"]["resnet-1"]
    anchor, _ = load_anchor(mini.backbone("resnet-1") / "model.safetensors", entry, made_by="x")
    distance = math.sqrt(sum(
        float(((state.network[f"backbone.{name}"] - value.detach()) ** 2).sum()) for name, value in anchor.named_parameters()
    ))  # fmt: skip
    assert last["displacement"] == pytest.approx(distance, rel=1e-5)
    assert last["penalty"] == pytest.approx(30 / 2 * distance**2, rel=1e-5)
    assert last["gradient_ratio"] > 0
    store = open_store(mini.data("scenes"))
    rows = store.rows("val", 0)
    hits = state.logits["2/val"].argmax(1).numpy() == store.column("y", rows)
    groups = store.column("group", rows)
    each = [hits[groups == group].mean() for group in range(4)]
    assert [last[f"val_group_{group}"] for group in range(4)] == pytest.approx(each)
    assert (last["val_average"], last["val_worst_group"]) == (pytest.approx(hits.mean()), pytest.approx(min(each)))


@pytest.mark.parametrize("settings", [{"lr": 1e30}, {"lr": 1e-3, "strength": 1e38}])
def test_divergence_is_a_sentence(train, settings):
    """NaN in a table is a bug report; this is advice, and exit code 4."""
    with pytest.raises(NumericalError, match="loss or weights are not finite after epoch 1") as caught:
        train(ARMS["l2sp"], hyper=settings, training={"optimizer": "sgd"})
    assert caught.value.exit_code == 4
    assert ARMS["l2sp"] in caught.value.message
    assert "lower the learning rate or the penalty strength" in caught.value.hint


AUGMENTED = {"augmentation": augmentation("dfr", "scenes"), "epochs": 3}


def test_augmentation_changes_what_is_trained_on(train):
    """Every epoch sees other crops; without the key in the plan the squares are trained on as they are stored."""
    plain = train(ARMS["erm"], training={"epochs": 3})
    augmented = train(ARMS["erm"], training=AUGMENTED)
    assert [line["train_loss"] for line in plain.history] != [line["train_loss"] for line in augmented.history]
    assert all(torch.equal(value, train(ARMS["erm"], training=AUGMENTED).network[key]) for key, value in augmented.network.items())


def test_arms_of_a_seed_see_the_same_crops(train, monkeypatch):
    """Pairing by seed covers the augmentation; another epoch and another seed draw others."""
    seen = {}
    real = loop.Augmentation.draw

    def draw(self, rng, count, size):
        found = real(self, rng, count, size)
        seen.setdefault(name, []).append(found[0])
        return found

    monkeypatch.setattr(loop.Augmentation, "draw", draw)
    for name in ("erm", "l2sp"):
        train(ARMS[name], training=AUGMENTED)
    for one, other in zip(seen["erm"], seen["l2sp"], strict=True):
        assert np.array_equal(one, other)
    steps = len(seen["erm"]) // 3
    assert not np.array_equal(seen["erm"][0], seen["erm"][steps])
    name = "other seed"
    train(ARMS["erm"], training=AUGMENTED, seed=99)
    assert not np.array_equal(seen["erm"][0], seen["other seed"][0])


def test_resumed_augmentation_continues_as_if_nothing_had_happened(train, mini_plan, material, tmp_path):
    """A generator of its own for each epoch: the crops after a kill are those of an uninterrupted run."""
    name = ARMS["erm"]
    whole = train(name, training=AUGMENTED)
    cell = mini_plan["cells"][name]
    cell = cell | {"training": cell["training"] | AUGMENTED}

    def stop(_):
        raise KeyboardInterrupt

    path = tmp_path / "resumed.pt"
    with pytest.raises(KeyboardInterrupt):
        loop.train_cell(name, cell, material(name), CellState("key"), path, stop)
    state = CellState.load(path, "key")
    assert state.epoch == 1
    resumed = loop.train_cell(name, cell, material(name), state, path, lambda _: None)
    assert all(torch.equal(value, resumed.network[key]) for key, value in whole.network.items())
    assert whole.history == resumed.history


CPU = torch.device("cpu")


@pytest.mark.parametrize("arm", ["erm", "ewc"])
def test_fixed_stages_are_computed_once_and_train_the_same(mini_plan, material, tmp_path, arm):
    """The cache is a matter of cost: a cell with it ends where one without it ends, up to the rounding of other batches."""
    name = next(cell for cell, entry in mini_plan["cells"].items() if entry["arm"] == arm)
    cell = mini_plan["cells"][name]
    cell = cell | {"training": cell["training"] | {"frozen_stages": 1}}
    read = material(name)
    plain = train_cell(name, cell, read, CellState("key"), tmp_path / "plain.pt", lambda _: None)
    fixed = FixedStages(read.make_backbone, 1, read.store, read.backbone, CPU)
    calls = []
    make = fixed._stem
    fixed._stem = lambda images: calls.append(len(images)) or make(images)
    cached = train_cell(name, cell, replace(read, fixed=fixed), CellState("key"), tmp_path / "cached.pt", lambda _: None)
    splits = (read.store.rows("train", cell["draw"]), *evaluation_rows(read.store, cell).values())
    assert sum(calls) == len(np.unique(np.concatenate(splits)))
    assert plain.network.keys() == cached.network.keys()
    for key, value in plain.network.items():
        torch.testing.assert_close(cached.network[key], value, rtol=1e-4, atol=1e-5)
    start = read.make_backbone().state_dict()
    groups = stage_parameters(read.make_backbone())
    assert all(torch.equal(cached.network[f"backbone.{key}"], start[key]) for group in groups[:2] for key in group)
    assert any(not torch.equal(cached.network[f"backbone.{key}"], start[key]) for group in groups[2:] for key in group)


def test_fixed_stages_of_another_draw_are_added(mini_plan, material):
    """Cells of a job have draws of their own: what was there stays where it is, what is new comes behind it."""
    read = material(next(iter(mini_plan["cells"])))
    fixed = FixedStages(read.make_backbone, 1, read.store, read.backbone, CPU)
    first, second = read.store.rows("train", 0), read.store.rows("train", 1)
    fixed.add(first[:40])
    fixed.add(np.concatenate([second, first]))
    expected, _ = split(read.make_backbone().eval(), 1)
    with torch.no_grad():
        for rows in (first, second[::-1]):
            images = to_input(read.store.layer("image")[rows], read.backbone, CPU)
            torch.testing.assert_close(fixed(rows), expected(images), rtol=1e-4, atol=1e-5)


def test_fixed_stages_that_do_not_fit_are_refused(mini_plan, material, monkeypatch):
    """CelebA's activations of a ViT-B/16 are 122 GB: found out at the start, not when the machine is full."""
    read = material(next(iter(mini_plan["cells"])))
    fixed = FixedStages(read.make_backbone, 1, read.store, read.backbone, CPU)
    rows = read.store.rows("train", 0)
    with torch.no_grad():
        images = to_input(read.store.layer("image")[rows[:1]], read.backbone, CPU)
        needed = len(rows) * split(read.make_backbone().eval(), 1)[0](images).numel() * 4
    monkeypatch.setattr(fixed_stages, "available_memory", lambda: needed - 1)
    with pytest.raises(EnvironmentFailure, match=f"{needed:,} bytes are needed, {needed - 1:,} available") as caught:
        fixed.add(rows)
    assert caught.value.message.startswith(f"training.frozen_stages keeps what the fixed stages make of {len(rows):,} images")
    assert f"lower datasets.{read.store.name}.size" in caught.value.hint
    monkeypatch.setattr(fixed_stages, "available_memory", lambda: needed)
    fixed.add(rows)
    assert len(fixed(rows)) == len(rows)
    other = read.store.rows("train", 1)
    with pytest.raises(EnvironmentFailure, match="bytes are needed"):
        fixed.add(other)
