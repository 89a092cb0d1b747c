"""The penalty and its gradient against autograd of the written formula."""

import math

import pytest
import torch
from torch import nn

from anchored.errors import ConfigError, NumericalError
from anchored.finetune import Anchor
from anchored.fisher.errors import MissingFisher, ShapeMismatch


class Mixed(nn.Module):
    """Parameters of every rank, one of them scalar, one channels-last, one frozen, one used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, dtype=torch.float64).to(memory_format=torch.channels_last)
        self.linear = nn.Linear(4, 5, dtype=torch.float64)
        self.tied = self.linear
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.tokens = nn.Parameter(torch.randn(1, 2, 3, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.randn(3, dtype=torch.float64), requires_grad=False)


def plain() -> nn.Module:
    return nn.Linear(3, 2, dtype=torch.float64)


def deep() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)).double()


def moved(build, strength: float, *, fisher_format: torch.memory_format = torch.contiguous_format):
    """A model away from its anchor, its anchor, its Fisher, and the starting values."""
    torch.manual_seed(0)
    model = build()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    fisher = {name: torch.rand_like(p, memory_format=torch.contiguous_format) ** 2 for name, p in trained.items()}
    fisher = {name: f.contiguous(memory_format=fisher_format) if f.ndim == 4 else f for name, f in fisher.items()}
    anchor = Anchor(model, fisher, strength)
    start = {name: p.detach().clone() for name, p in trained.items()}
    with torch.no_grad():
        for p in trained.values():
            p += torch.randn_like(p)
    return model, anchor, fisher, start


def formula(model: nn.Module, fisher, start, strength: float) -> torch.Tensor:
    named = dict(model.named_parameters())
    return strength / 2 * sum((fisher[name] * (named[name] - start[name]) ** 2).sum() for name in start)


@pytest.mark.parametrize("fisher_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("strength", [0.5, 30.0])
@pytest.mark.parametrize("build", [plain, deep, Mixed])
def test_gradient_and_penalty_equal_autograd(build, strength, fisher_format):
    """The fused form writes into `.grad`; a mixed memory format once paired weights with the wrong parameters elsewhere."""
    model, anchor, fisher, start = moved(build, strength, fisher_format=fisher_format)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = formula(model, fisher, start, strength)
    gradients = dict(zip(trained, torch.autograd.grad(expected, list(trained.values())), strict=True))
    task = {name: torch.randn_like(p) for name, p in trained.items()}
    for number, (name, p) in enumerate(trained.items()):
        p.grad = None if number == 1 else task[name].clone()
    assert anchor.penalty() == pytest.approx(expected.item(), rel=1e-12)
    anchor.add_gradient()
    for number, (name, p) in enumerate(trained.items()):
        wanted = gradients[name] if number == 1 else gradients[name] + task[name]
        torch.testing.assert_close(p.grad, wanted, rtol=1e-12, atol=1e-13)
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    assert anchor.gradient_norm() == pytest.approx(norm, rel=1e-12)
    distance = math.sqrt(sum(float(((p.detach() - start[name]) ** 2).sum()) for name, p in trained.items()))
    assert anchor.displacement() == pytest.approx(distance, rel=1e-12)


def test_scalar_fisher_is_l2_sp():
    """L2-SP is the same penalty with f = 1 (Li et al. 2018): strength / 2 * |theta - anchor|^2."""
    model, _, _, start = moved(Mixed, 1.0)
    named = dict(model.named_parameters())
    with torch.no_grad():
        values = {name: named[name].clone() for name in start}
        for name, value in start.items():
            named[name].copy_(value)
        anchor = Anchor(model, 1.0, 3.0)
        for name, value in values.items():
            named[name].copy_(value)
    expected = 1.5 * sum(float(((values[name] - start[name]) ** 2).sum()) for name in start)
    assert anchor.penalty() == pytest.approx(expected, rel=1e-12)


def test_nothing_pulls_at_the_anchor():
    """At the anchor itself penalty and gradient are exactly 0, so the first step is the task's alone."""
    model = Mixed()
    anchor = Anchor(model, 1.0, 100.0)
    anchor.add_gradient()
    assert anchor.penalty() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_strength_zero_is_a_no_op():
    """Arms without an anchor use strength 0: no gradient may appear where there was none (freeze), no bit may change."""
    model, anchor, _, _ = moved(Mixed, 0.0)
    model.scale.grad = torch.tensor(-0.0, dtype=torch.float64)
    anchor.add_gradient()
    assert math.copysign(1, model.scale.grad.item()) == -1
    assert all(p.grad is None for name, p in model.named_parameters() if name != "scale")
    assert anchor.penalty() == 0


def test_frozen_parameters_are_left_alone():
    """They need no Fisher and get no gradient."""
    model, anchor, fisher, _ = moved(Mixed, 1.0)
    assert "frozen" not in fisher
    anchor.add_gradient()
    assert model.frozen.grad is None


def test_later_changes_do_not_move_the_anchor():
    """The anchor is a copy: an alias would follow the training and pull nowhere."""
    model = plain()
    anchor = Anchor(model, 1.0, 1.0)
    with torch.no_grad():
        model.weight += 1
    assert anchor.displacement() == pytest.approx(math.sqrt(6))


def test_missing_fisher_lists_every_name():
    """A foreign Fisher usually lacks a whole block: one name at a time would take all day."""
    model = deep()
    fisher = {name: torch.ones_like(p) for name, p in model.named_parameters() if not name.startswith("1.")}
    with pytest.raises(MissingFisher, match=r"the Fisher lacks 2 of 5 parameters: 1\.weight, 1\.bias\.") as caught:
        Anchor(model, fisher, 1.0)
    assert "requires_grad=False" in caught.value.hint
    assert caught.value.exit_code == 3


def test_shape_mismatch_names_both_shapes():
    """Broadcasting would silently spread one row over all."""
    model = plain()
    with pytest.raises(ShapeMismatch, match=r"the Fisher of weight has shape \(1, 3\), the parameter \(2, 3\)\."):
        Anchor(model, {"weight": torch.ones(1, 3), "bias": torch.ones(2)}, 1.0)


@pytest.mark.parametrize("value", [-1e-12, math.nan, math.inf])
def test_impossible_fisher_is_refused(value):
    """A negative entry pushes its parameter away without bound; as a tensor and as a scalar."""
    fisher = {"weight": torch.ones(2, 3), "bias": torch.tensor([1.0, value])}
    with pytest.raises(NumericalError, match="the Fisher of bias holds negative or non-finite values"):
        Anchor(plain(), fisher, 1.0)
    with pytest.raises(NumericalError, match="the Fisher must be finite and at least 0"):
        Anchor(plain(), value, 1.0)


@pytest.mark.parametrize("strength", [-1.0, math.nan, math.inf])
def test_impossible_strength_is_refused(strength):
    """A negative strength is a repulsion; nobody asks for one knowingly."""
    with pytest.raises(ConfigError, match="the penalty strength must be finite and at least 0"):
        Anchor(plain(), 1.0, strength)


def test_model_without_trainable_parameters_is_refused():
    """Anchoring before unfreezing is a mistake in the order of two lines; torch's own error names empty tensor lists."""
    with pytest.raises(ConfigError, match="there is nothing to anchor"):
        Anchor(plain().requires_grad_(False), 1.0, 1.0)
