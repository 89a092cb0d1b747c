"""Counting, adding, cleaning up; and the closed form."""

import gc
import weakref
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from fisher_cases import CASES, IMAGES, assert_equal_per_tensor, random, randomised
from torch import nn

from anchored.errors import NumericalError
from anchored.fisher import DiagonalFisher, diagonal_fisher, merge, sampled_nll
from anchored.fisher.errors import BadBatch, BadLoss, ShapeMismatch

VIT, RESNET = CASES[1], CASES[9]
BACKENDS = ["loop", "hooks"]


@pytest.mark.parametrize("case", [VIT, RESNET], ids=lambda case: case.name)
@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_size_does_not_matter(case, backend):
    """Squaring the gradient of a batch mean, as some libraries do, scales with 1/B."""
    model, batch = case.model(), case.batch()
    whole = diagonal_fisher(model, [batch], case.loss, backend=backend, dtype=torch.float64)
    for size in (1, 2):
        parts = diagonal_fisher(model, batch.split(size), case.loss, backend=backend, dtype=torch.float64)
        assert parts.count == whole.count
        assert_equal_per_tensor(parts, whole)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_of_disjoint_images_add(backend):
    model, batch = VIT.model(), VIT.batch()
    whole = diagonal_fisher(model, [batch], VIT.loss, backend=backend, dtype=torch.float64)
    shards = [diagonal_fisher(model, [part], VIT.loss, backend=backend, dtype=torch.float64) for part in batch.split(2)]
    merged = merge(shards)
    assert merged.count == IMAGES
    assert merged.backend == backend
    assert_equal_per_tensor(merged, whole)
    again = shards[0].merge(*shards[1:])
    assert all(torch.equal(again.sums[name], merged.sums[name]) for name in merged)
    assert all(not torch.equal(shards[0].sums[name], merged.sums[name]) for name in merged), "the shards were changed"


def test_shards_of_other_models_are_refused():
    model = nn.Linear(3, 2)
    other = nn.Linear(3, 2, bias=False)
    parts = [diagonal_fisher(m, [random(4, 3).float()], lambda m, x: m(x).sum(1)) for m in (model, other)]
    with pytest.raises(ShapeMismatch, match=r"part 1 of the Fisher does not fit the rest; they differ in bias\."):
        merge(parts)
    turned = DiagonalFisher({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, 4, "loop")
    with pytest.raises(ShapeMismatch, match=r"they differ in weight\."):
        merge([parts[0], turned])
    with pytest.raises(BadBatch, match="no part to merge"):
        merge([])


def test_it_is_a_mapping_like_named_parameters():
    model = VIT.model()
    fisher = diagonal_fisher(model, [VIT.batch()], VIT.loss)
    assert list(fisher) == [name for name, _ in model.named_parameters()]
    assert len(fisher) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert fisher[name].shape == parameter.shape
        assert fisher[name].dtype == torch.float32
        assert torch.equal(fisher[name], fisher.sums[name] / IMAGES)
        assert fisher[name].is_contiguous()


def test_only_parameters_with_gradients_are_measured():
    model = VIT.model()
    model.blocks[0].requires_grad_(False)
    fisher = diagonal_fisher(model, [VIT.batch()], VIT.loss, dtype=torch.float64)
    assert not any(name.startswith("blocks.0.") for name in fisher)
    model.requires_grad_(True)
    everything = diagonal_fisher(model, [VIT.batch()], VIT.loss, dtype=torch.float64)
    assert_equal_per_tensor(fisher, {name: everything[name] for name in fisher})


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_call_gives_the_same_bits(backend):
    first, second = (diagonal_fisher(VIT.model(torch.float32), [VIT.batch().float()], VIT.loss, backend=backend) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_progress_is_reported_after_each_batch(backend):
    seen: list[int] = []
    parts = VIT.batch().split(2)
    diagonal_fisher(VIT.model(), parts, VIT.loss, backend=backend, on_batch=lambda fisher: seen.append(fisher.count))
    assert seen == [2, 4, 5]


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was_found(backend, fails):
    model = VIT.model()
    model.norm.weight.requires_grad_(False)
    model.cls_token.grad = torch.ones_like(model.cls_token)
    head = nn.Linear(16, 3).double()
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def loss(network, views):
        out = head(network(views.flatten(0, 1))).unflatten(0, (len(views), -1)).square().sum((1, 2))
        if fails and len(views) == 1:  # the last batch of hooks; every batch of loop
            raise KeyError("as a user's loss may")
        return out

    batches = VIT.batch().split(2)
    if fails:
        with pytest.raises(KeyError):
            diagonal_fisher(model, batches, loss, backend=backend)
    else:
        diagonal_fisher(model, batches, loss, backend=backend)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name != "norm.weight")
        assert (parameter.grad is None) == (name != "cls_token")
    assert all(torch.equal(tensor, values[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in head.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_gradients_may_be_off_outside():
    model = nn.Linear(3, 2)
    with torch.no_grad():
        fisher = diagonal_fisher(model, [random(4, 3).float()], lambda m, x: m(x).square().sum(1))
    assert fisher.count == 4
    assert bool(fisher["weight"].any())


class Pair(NamedTuple):
    views: torch.Tensor
    temperature: float


class Slices:
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> "Slices":
        return Slices(self.images[part])


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_of_every_structure(backend):
    model, images = randomised(nn.Linear(3, 2)), random(4, 3)
    expected = diagonal_fisher(model, [images], lambda m, x: (m(x) * 2.0).sin().sum(1), dtype=torch.float64)
    batches = {
        "tuple": ((images, 2.0), lambda b: b),
        "list": ([images, torch.tensor(2.0)], lambda b: b),
        "dict": ({"x": {"y": images}, "t": 2.0, "name": "a", "none": None}, lambda b: (b["x"]["y"], b["t"])),
        "named": (Pair(images, 2.0), lambda b: (b.views, b.temperature)),
        "slices": (Slices(images), lambda b: (b.images, 2.0)),
    }
    for kind, (batch, unpack) in batches.items():

        def loss(network, part, unpack=unpack):
            x, t = unpack(part)
            return (network(x) * t).sin().sum(1)

        actual = diagonal_fisher(model, [batch], loss, backend=backend, dtype=torch.float64)
        assert actual.count == 4, kind
        assert_equal_per_tensor(actual, expected)


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        ((torch.zeros(2, 3), torch.zeros(4, 3)), r"a batch of type tuple has parts of \[2, 4\] images\."),
        ((1.0, "a"), r"a batch of type tuple has no part with a leading image dimension\."),
        ((torch.zeros(2, 3), object()), r"a batch has a part of type object, which has no slices\."),
    ],
)
def test_batches_without_images(batch, sentence):
    with pytest.raises(BadBatch, match=sentence):
        diagonal_fisher(nn.Linear(3, 2), [batch], lambda m, b: m(b[0]).sum(1), backend="loop")


def test_no_images():
    with pytest.raises(BadBatch, match="there was no image to measure the Fisher on"):
        diagonal_fisher(nn.Linear(3, 2), [], lambda m, b: m(b).sum(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_in_a_loss_names_the_image(backend):
    images = random(5, 3)
    images[3, 0] = float("nan")
    with pytest.raises(NumericalError, match=r"the loss of image 3 is nan\.\n  look at that image"):
        diagonal_fisher(nn.Linear(3, 2).double(), images.split(2), lambda m, x: m(x).sum(1), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinite_gradient_of_a_finite_loss_names_the_parameter(backend):
    """sqrt at zero: the loss is 0, its derivative infinite."""
    model = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    with pytest.raises(NumericalError, match=r"the Fisher of 0\.weight has 6 of 6 entries that are NaN or infinite"):
        diagonal_fisher(model, [torch.ones(2, 3)], lambda m, x: m(x).abs().sum(1).sqrt(), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda m, x: m(x).sum(), r"returned shape \(\) where \((B,|1,)\) is needed\.\n  return one value per image"),
        (lambda m, x: 1.0, r"loss\(model, batch\) returned float where"),
        (lambda m, x: m(x).detach().sum(1), r"does not depend on any parameter of the model\.\n  check for a detach"),
        (lambda m, x: (m(x).detach() * HEAD).sum(1), r"does not depend on any parameter of the model\.\n  check for a detach"),
    ],
)
def test_losses_that_break_the_contract(backend, loss, sentence):
    with pytest.raises(BadLoss, match=sentence):
        diagonal_fisher(nn.Linear(3, 2), [torch.ones(2, 3)], loss, backend=backend)


HEAD = torch.ones(2, requires_grad=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_logistic_regression_has_a_closed_form(backend):
    """Two classes, logits (w.x + b, 0): the true Fisher is E[x^2 p(1-p)] for w and E[p(1-p)] for b."""
    model = nn.Linear(3, 1).double()
    x = random(2000, 3)
    with torch.no_grad():
        p = torch.sigmoid(model(x)).squeeze(1)
    variance = p * (1 - p)
    closed = {"weight": (x**2 * variance[:, None]).mean(0)[None], "bias": variance.mean()[None]}

    def over_labels(network, batch):
        """Exact: each label is a view-like row whose loss is weighted by the root of its probability."""
        images, label, weight = batch
        logits = F.pad(network(images), (0, 1))
        return weight * F.cross_entropy(logits, label, reduction="none")

    exact = merge(
        [
            diagonal_fisher(model, [(x, torch.full((2000,), y), root)], over_labels, backend=backend, dtype=torch.float64)
            for y, root in ((0, p.sqrt()), (1, (1 - p).sqrt()))
        ]
    )
    assert_equal_per_tensor({name: exact[name] * 2 for name in exact}, closed)

    uniforms = torch.rand(2000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    sampled = diagonal_fisher(
        model, [(x, uniforms)], lambda m, b: sampled_nll(F.pad(m(b[0]), (0, 1)), b[1]), backend=backend, dtype=torch.float64
    )
    # Var of x^2 (y - p)^2 given x: x^4 p(1-p)(1-2p)^2.
    spread = variance * (1 - 2 * p) ** 2
    sigma = {"weight": ((x**4 * spread[:, None]).sum(0).sqrt() / 2000)[None], "bias": (spread.sum().sqrt() / 2000)[None]}
    for name in closed:
        assert bool(((sampled[name] - closed[name]).abs() < 4 * sigma[name]).all()), name
        assert not torch.allclose(sampled[name], closed[name], rtol=1e-6)


def test_sampled_labels_follow_the_prediction():
    logits = torch.tensor([[0.0, 1.0, -1.0, -torch.inf]]).repeat(40_000, 1)
    uniforms = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    losses = sampled_nll(logits, uniforms)
    p = logits[0].softmax(-1)
    for k in range(3):
        share = float(torch.isclose(losses, -p.log()[k]).float().mean())
        assert share == pytest.approx(float(p[k]), abs=4 * float((p[k] * (1 - p[k]) / 40_000).sqrt()))
    assert bool(torch.isfinite(losses).all()), "a label of probability zero was drawn"
    edges = sampled_nll(logits[:2], torch.tensor([0.0, 1.0 - 2**-24]))
    assert torch.allclose(edges, -p.log()[[0, 2]])
    assert float(sampled_nll(torch.tensor([[-torch.inf, 0.0]]), torch.zeros(1))) == 0.0, "label 0 has probability zero"


def test_sampled_labels_are_no_part_of_the_gradient():
    logits = random(4, 3).requires_grad_()
    uniforms = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    losses = sampled_nll(logits, uniforms)
    labels = (losses[:, None] + logits.log_softmax(-1)).abs().argmin(-1)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert torch.allclose(gradient, logits.softmax(-1) - F.one_hot(labels, 3))


@pytest.mark.parametrize("backend", [*BACKENDS, "signs"])
def test_memory_does_not_grow_with_the_number_of_images(backend):
    """The batch at hand and the one being made; nothing of an image outlives its batch."""
    seen: list[weakref.ref[torch.Tensor]] = []

    def batches():
        for index in range(12):
            assert sum(reference() is not None for reference in seen) <= 1, index
            batch = VIT.batch() + index
            seen.append(weakref.ref(batch))
            yield batch
            del batch

    assert diagonal_fisher(VIT.model(), batches(), VIT.loss, backend=backend).count == 12 * IMAGES


@pytest.mark.parametrize("case", [VIT, RESNET], ids=lambda case: case.name)
def test_no_activation_outlives_its_batch(case):
    """Once, a hook held the tensor that held the hook: memory was twice that of training until the collector came by."""
    model = case.model()
    left: list[int] = []
    seen: list[weakref.ref[torch.Tensor]] = []
    for module in model.modules():
        module.register_forward_hook(lambda _, __, out: seen.append(weakref.ref(out)) if isinstance(out, torch.Tensor) else None)

    def alive() -> int:
        return sum(reference() is not None for reference in seen)

    gc.collect()
    gc.disable()
    try:
        diagonal_fisher(model, [case.batch()], case.loss, backend="hooks", on_batch=lambda _: left.append(alive()))
    finally:
        gc.enable()
    assert seen
    assert left == [0]
