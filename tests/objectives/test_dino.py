"""DINO and InfoNCE against lightly's modules and against the definitions written out; sampled labels against enumeration."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from anchored.compat import prepare_torchvision
from anchored.objectives.dino import dino_losses, sampled_losses, update_centre
from anchored.objectives.infonce import infonce_losses

TEMPERATURES = {"student_temperature": 0.1, "teacher_temperature": 0.04}
SHAPES = [(1, 2, 2, 3), (5, 2, 2, 7), (4, 6, 2, 9), (3, 4, 4, 5), (2, 3, 1, 4)]


def logits(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_dino(student, teacher, centre, *, student_temperature, teacher_temperature):
    """The definition, pair by pair, exponential by exponential."""
    losses = []
    for image in range(len(student)):
        pairs = []
        for t in range(teacher.shape[1]):
            q = torch.exp((teacher[image, t] - centre) / teacher_temperature)
            q = q / q.sum()
            for v in range(student.shape[1]):
                if v != t:
                    p = torch.exp(student[image, v] / student_temperature)
                    pairs.append(-(q * torch.log(p / p.sum())).sum())
        losses.append(sum(pairs) / len(pairs))
    return torch.stack(losses)


@pytest.mark.parametrize("shape", SHAPES)
def test_dino_equals_the_definition(shape):
    """The fast form sums over all pairs and takes the diagonal away again: an error there is small and everywhere."""
    images, views, globals_, prototypes = shape
    student, teacher = logits((images, views, prototypes), 1), logits((images, globals_, prototypes), 2)
    centre = logits((prototypes,), 3) / 9
    student.requires_grad_()
    expected = slow_dino(student, teacher, centre, **TEMPERATURES)
    (gradient,) = torch.autograd.grad(expected.sum(), student)
    found = dino_losses(student, teacher, centre, **TEMPERATURES)
    (same,) = torch.autograd.grad(found.sum(), student)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same, gradient, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[2] > 1])
def test_dino_equals_lightly(shape):
    """An independent implementation that many people train with; its centre is held, it averages over the batch."""
    prepare_torchvision()
    lightly = pytest.importorskip("lightly.loss")
    images, views, globals_, prototypes = shape
    student, teacher = logits((images, views, prototypes), 1), logits((images, globals_, prototypes), 2)
    centre = logits((prototypes,), 3) / 9
    student.requires_grad_()
    module = lightly.DINOLoss(prototypes, student_temp=0.1, teacher_temp=0.04, center_momentum=1.0).double()
    module.center.copy_(centre)
    expected = module(list(teacher.unbind(1)), list(student.unbind(1)))
    (gradient,) = torch.autograd.grad(expected, student)
    found = dino_losses(student, teacher, centre, **TEMPERATURES).mean()
    (same,) = torch.autograd.grad(found, student)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # lightly keeps its temperature in float32
    torch.testing.assert_close(same, gradient, rtol=1e-5, atol=1e-9)
    assert torch.equal(module.center.flatten(), centre)


def test_centre_moves_as_lightly_moves_it():
    """The centre keeps the teacher from collapsing; lightly moves it inside the loss, here it is a function."""
    prepare_torchvision()
    lightly = pytest.importorskip("lightly.loss")
    teacher, student, centre = logits((6, 2, 5), 1), logits((6, 2, 5), 2), logits((5,), 3)
    module = lightly.DINOLoss(5, center_momentum=0.9).double()
    module.center.copy_(centre)
    module(list(teacher.unbind(1)), list(student.unbind(1)))
    torch.testing.assert_close(update_centre(centre, teacher, 0.9), module.center.flatten())


def test_no_gradient_reaches_the_teacher():
    """A gradient through the targets would let the student pull its teacher down."""
    student, teacher = logits((3, 2, 4), 1).requires_grad_(), logits((3, 2, 4), 2).requires_grad_()
    dino_losses(student, teacher, torch.zeros(4), **TEMPERATURES).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


@pytest.mark.parametrize(("views", "globals_"), [(1, 1), (2, 3)])
def test_dino_needs_a_pair_of_views(views, globals_):
    """One view has no other to be compared with: 0 / 0."""
    with pytest.raises(ValueError, match=f"got {views} and {globals_}"):
        dino_losses(torch.zeros(2, views, 3), torch.zeros(2, globals_, 3), torch.zeros(3), **TEMPERATURES)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(1, 6), st.floats(0.05, 2.0), st.integers(0, 1000))
def test_infonce_equals_the_dense_formula(images, width, temperature, seed):
    """Row by row: exp(positive) over the sum of exp of all others, in both directions."""
    first, second = (F.normalize(logits((images, width), seed + part), dim=-1) for part in (0, 1))
    both = torch.cat([first, second])
    expected = []
    for image in range(images):
        terms = []
        for anchor, positive in ((image, image + images), (image + images, image)):
            others = [math.exp(float(both[anchor] @ both[m]) / temperature) for m in range(2 * images) if m != anchor]
            terms.append(-math.log(math.exp(float(both[anchor] @ both[positive]) / temperature) / sum(others)))
        expected.append(sum(terms) / 2)
    found = infonce_losses(first, second, temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_infonce_equals_lightly():
    """Value and gradient of NT-Xent with the same projections."""
    prepare_torchvision()
    lightly = pytest.importorskip("lightly.loss")
    first, second = (logits((6, 5), seed).requires_grad_() for seed in (1, 2))
    expected = lightly.NTXentLoss(temperature=0.2)(first, second)
    gradients = torch.autograd.grad(expected, (first, second))
    found = infonce_losses(F.normalize(first, dim=-1), F.normalize(second, dim=-1), temperature=0.2).mean()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    for mine, theirs in zip(torch.autograd.grad(found, (first, second)), gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)


def test_infonce_needs_negatives():
    """With one image the loss would be 0 whatever the network does."""
    with pytest.raises(ValueError, match="at least 2 images"):
        infonce_losses(torch.ones(1, 3), torch.ones(1, 3), temperature=0.2)


def test_expected_square_of_sampled_gradients_is_the_fisher():
    """E_k[(d -log p(k) / d theta)^2] by enumerating the labels equals the softmax Fisher diag(J^T (diag p - p p^T) J)."""
    temperature = 0.5
    weight, image = logits((4, 3), 1).requires_grad_(), logits((3,), 2)
    p = torch.softmax(weight @ image / temperature, dim=0).detach()
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), p.cumsum(0)])
    expected_square = torch.zeros_like(weight)
    for label in range(4):
        uniform = ((edges[label] + edges[label + 1]) / 2).reshape(1, 1)
        loss = sampled_losses((weight @ image).reshape(1, 1, 4), uniform, student_temperature=temperature)
        torch.testing.assert_close(loss.detach(), -p[label].log().reshape(1))
        (gradient,) = torch.autograd.grad(loss.sum(), weight)
        expected_square += p[label] * gradient**2
    logit_fisher = (torch.diag(p) - torch.outer(p, p)) / temperature**2
    jacobian = torch.stack([torch.outer(row, image).flatten() for row in torch.eye(4, dtype=torch.float64)])
    fisher = torch.diag(jacobian.T @ logit_fisher @ jacobian).reshape(4, 3)
    torch.testing.assert_close(expected_square.detach(), fisher, rtol=1e-12, atol=1e-14)


def test_labels_are_drawn_with_the_model_s_own_frequencies():
    """On an even grid of uniforms the share of each label is its probability, to within one grid step."""
    student = logits((1, 1, 6), 4)
    steps = 20_000
    uniforms = (torch.arange(steps, dtype=torch.float64)[:, None] + 0.5) / steps
    losses = sampled_losses(student.expand(steps, 1, 6), uniforms, student_temperature=0.7)
    p = torch.softmax(student.flatten() / 0.7, dim=0)
    drawn = (losses[:, None] + p.log()[None]).abs().argmin(1)
    shares = torch.bincount(drawn, minlength=6) / steps
    assert (shares - p).abs().max() <= 1.01 / steps


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_extreme_uniforms_draw_a_label(uniform):
    """Rounding leaves the cumulative sum a little below 1: the label K once was out of range."""
    student = torch.randn(50, 3, 40, generator=torch.Generator().manual_seed(0))
    losses = sampled_losses(student, torch.full((50, 3), uniform), student_temperature=0.1)
    assert losses.isfinite().all()


def test_impossible_labels_are_not_drawn():
    """A label of probability 0 has an infinite loss; uniform 0 must not pick a leading one."""
    student = torch.tensor([[[-1e4, 0.0, 0.0, -1e4]]])
    for uniform in (0.0, 0.25, 0.5, 0.75, 1 - 2**-24):
        loss = sampled_losses(student, torch.tensor([[uniform]]), student_temperature=0.1)
        torch.testing.assert_close(loss, torch.tensor([math.log(2)]))
