"""The estimate by random signs: unbiased, with an error that is known, whatever the batches are."""

import itertools

import numpy as np
import pytest
import torch
from fisher_cases import CASES, IMAGES, assert_equal_per_tensor, random
from torch import nn

from anchored.errors import NumericalError
from anchored.fisher import diagonal_fisher
from anchored.fisher.errors import BadLoss, ShapeMismatch
from anchored.fisher.signs import random_signs

VIT, RESNET = CASES[1], CASES[9]
DOUBLE = torch.float64


def estimate(case, seed: int, batches=None, **options):
    return diagonal_fisher(case.model(), batches or [case.batch()], case.loss, backend="signs", dtype=DOUBLE, seed=seed, **options)


@pytest.mark.parametrize("case", [VIT, RESNET], ids=lambda case: case.name)
def test_the_mean_over_all_sign_patterns_is_the_fisher(case, monkeypatch):
    """Exactly unbiased: no statistics needed, the 2^5 patterns of a batch can be tried one by one."""
    import anchored.fisher.signs as module

    exact = diagonal_fisher(case.model(), [case.batch()], case.loss, backend="loop", dtype=DOUBLE)
    mean = {name: torch.zeros_like(tensor) for name, tensor in exact.items()}
    for pattern in itertools.product((-1.0, 1.0), repeat=IMAGES):
        monkeypatch.setattr(module, "random_signs", lambda *_, pattern=pattern: torch.tensor(pattern))
        for name, tensor in estimate(case, 0).items():
            mean[name] += tensor / 2**IMAGES
    assert_equal_per_tensor(mean, exact)


def test_batches_of_one_image_are_exact():
    """The square of one signed gradient has no cross terms, so its error is zero too."""
    exact = diagonal_fisher(VIT.model(), [VIT.batch()], VIT.loss, backend="loop", dtype=DOUBLE)
    found = estimate(VIT, 3, VIT.batch().split(1))
    assert_equal_per_tensor(found, exact)
    assert set(found.relative_errors.values()) == {0.0}


@pytest.mark.parametrize("size", [2, 5])
def test_the_reported_variance_is_the_mean_squared_error(size):
    """Over 150 seeds, tensor by tensor; the comparison itself has a standard error of a few percent."""
    model, data = nn.Linear(6, 4).double(), random(200, 6)

    def loss(network, batch):
        return network(batch).tanh().sum(1)

    exact = diagonal_fisher(model, [data], loss, backend="loop", dtype=DOUBLE)
    distance, reported = (dict.fromkeys(exact, 0.0) for _ in range(2))
    for seed in range(150):
        found = diagonal_fisher(model, data.split(size), loss, backend="signs", dtype=DOUBLE, seed=seed)
        for name in exact:
            distance[name] += float((found.sums[name] - exact.sums[name]).square().sum()) / 150
            reported[name] += found.variances[name] * found.count / found.checked / 150
    for name in exact:
        assert distance[name] / reported[name] == pytest.approx(1.0, abs=0.25), name


def test_an_exact_backend_has_no_standard_error():
    assert diagonal_fisher(VIT.model(), [VIT.batch()], VIT.loss).relative_errors == {}


def test_the_sign_of_an_image_depends_on_its_index_only():
    """A shard starts in the middle of the list; its images must have the signs that they have in one go."""
    assert torch.equal(random_signs(5, 0, 12)[7:], random_signs(5, 7, 5))
    many = random_signs(5, 0, 2000)
    assert set(many.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(many.mean())) < 4 / np.sqrt(2000)
    assert not torch.equal(many, random_signs(6, 0, 2000))


def test_parts_add_up_to_the_whole():
    batches = VIT.batch().split(2)
    whole = estimate(VIT, 3, batches)
    parts = [estimate(VIT, 3, [batch], first_image=2 * index) for index, batch in enumerate(batches)]
    merged = parts[0].merge(*parts[1:])
    assert_equal_per_tensor(merged, whole)
    assert merged.relative_errors == pytest.approx(whole.relative_errors)


def test_any_model_will_do_and_a_shared_weight_counts_once():
    """Both uses of a tied weight belong to one gradient."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.tanh(x @ self.layer.weight))

    model, data = Tied().double(), random(3, 4)

    def loss(network, batch):
        return network(batch).square().sum(1)

    found = diagonal_fisher(model, data.split(1), loss, backend="signs", dtype=DOUBLE)
    assert_equal_per_tensor(found, diagonal_fisher(model, [data], loss, backend="loop", dtype=DOUBLE))


def test_what_is_wrong_with_a_loss_is_said():
    model = nn.Linear(2, 1)
    with pytest.raises(BadLoss, match="returned shape"):
        diagonal_fisher(model, [torch.ones(3, 2)], lambda m, x: m(x).mean(), backend="signs")
    with pytest.raises(NumericalError, match="the loss of image 4 is nan"):
        diagonal_fisher(
            model,
            [torch.ones(3, 2), torch.tensor([[1.0, 1.0], [float("nan"), 1.0]])],
            lambda m, x: m(x).sum(1),
            backend="signs",
        )
    with pytest.raises(BadLoss, match="does not depend"):
        diagonal_fisher(model, [torch.ones(3, 2)], lambda m, x: m(x).detach().sum(1), backend="signs")


# --- continuing what was interrupted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loop", "hooks", "signs", "auto"])
def test_a_continued_measurement_has_the_bits_of_an_uninterrupted_one(backend):
    batches = [part.float() for part in VIT.batch().split(1)]

    def measure(parts, **options):
        return diagonal_fisher(VIT.model(torch.float32), parts, VIT.loss, backend=backend, seed=9, **options)

    whole = measure(batches)
    before = measure(batches[:3])
    after = measure(batches[3:], start=before)
    assert after.count == whole.count
    assert all(torch.equal(after.sums[name], whole.sums[name]) for name in whole)
    assert after.relative_errors == whole.relative_errors


def test_auto_continues_with_the_loop_where_it_had_begun_with_it():
    """The first batch after a restart finds the uncovered parameter again, with images already counted."""

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.full((3,), 0.5))
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.stack([x, 2 * x], dim=1)
            x[:, 0] = self.token
            return self.layer(x).tanh().sum(1)

    model, data = Written().double(), random(4, 3)

    def loss(network, batch):
        return network(batch).square().sum(1)

    before = diagonal_fisher(model, [data[:2]], loss, dtype=DOUBLE)
    after = diagonal_fisher(model, [data[2:]], loss, dtype=DOUBLE, start=before)
    assert (after.backend, after.count) == ("loop", 4)
    assert_equal_per_tensor(after, diagonal_fisher(model, [data], loss, backend="loop", dtype=DOUBLE))


def test_a_start_of_another_model_is_refused():
    start = diagonal_fisher(nn.Linear(2, 1, bias=False), [torch.ones(3, 2)], lambda m, x: m(x).sum(1))
    with pytest.raises(ShapeMismatch, match="what was measured before does not fit the rest; they differ in bias"):
        diagonal_fisher(nn.Linear(2, 1), [torch.ones(3, 2)], lambda m, x: m(x).sum(1), start=start)
