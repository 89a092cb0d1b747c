import math

import pytest
import torch
from fisher_cases import random

from anchored.errors import ConfigError, NumericalError
from anchored.fisher import condition, shuffle_within_tensors, statistics

F = {"a": torch.tensor([[0.0, 1.0], [2.0, 5.0]]), "b": torch.tensor([12.0])}  # sum 20, mean 4


@pytest.mark.parametrize(
    ("kind", "value", "before_scaling"),
    [
        ("normalise", None, [0, 1, 2, 5, 12]),
        ("floor", 0.5, [2, 2, 2, 5, 12]),
        ("clip", 0.8, [0, 1, 2, 5, 5]),
        ("clip", 0.61, [0, 1, 2, 5, 5]),
        ("clip", 0.6, [0, 1, 2, 2, 2]),
        ("clip", 1.0, [0, 1, 2, 5, 12]),
        ("layer-mean", None, [2, 2, 2, 2, 12]),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_conditioning(kind, value, before_scaling, scale):
    """By hand; the scale of F does not matter."""
    result = condition({name: tensor * scale for name, tensor in F.items()}, kind, value)
    expected = torch.tensor(before_scaling, dtype=torch.float32)
    expected /= expected.mean()
    assert [tensor.shape for tensor in result.values()] == [tensor.shape for tensor in F.values()]
    assert torch.allclose(torch.cat([tensor.flatten() for tensor in result.values()]), expected, rtol=1e-6)


def test_none_is_raw_and_a_copy():
    result = condition(F, "none")
    assert all(torch.equal(result[name], F[name]) and result[name] is not F[name] for name in F)


def test_nothing_is_changed_in_place():
    before = {name: tensor.clone() for name, tensor in F.items()}
    for kind, value in (("floor", 0.1), ("clip", 0.9), ("layer-mean", None), ("normalise", None)):
        condition(F, kind, value)
    assert all(torch.equal(F[name], before[name]) for name in F)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        ("huge", None, "there is no conditioning 'huge'"),
        ("floor", None, "conditioning 'floor' needs a value"),
        ("none", 1.0, "conditioning 'none' takes no value"),
        ("floor", 0.0, r"floor needs a positive value, not 0\.0\."),
        ("floor", math.inf, "floor needs a positive value, not inf"),
        ("clip", 99.0, r"clip needs a share above 0 and at most 1, not 99\.0\.\n  0\.99 cuts the largest hundredth\."),
    ],
)
def test_wrong_conditioning(kind, value, sentence):
    with pytest.raises(ConfigError, match=sentence):
        condition(F, kind, value)


def test_a_fisher_of_zero_has_no_scale():
    with pytest.raises(NumericalError, match="the Fisher is zero after 'normalise' in every entry"):
        condition({"a": torch.zeros(3)}, "normalise")
    with pytest.raises(NumericalError, match="zero after 'clip'"):
        condition({"a": torch.tensor([0.0, 0.0, 1.0])}, "clip", 0.5)


def test_shuffling_keeps_values_and_loses_places():
    fisher = {"a": random(5, 7).square(), "b": random(35, seed=2).square()}
    shuffled = shuffle_within_tensors(fisher, 1)
    for name, tensor in fisher.items():
        assert shuffled[name].shape == tensor.shape
        assert torch.equal(shuffled[name].flatten().sort().values, tensor.flatten().sort().values)
        assert not torch.equal(shuffled[name], tensor)
    assert all(torch.equal(shuffle_within_tensors(fisher, 1)[name], shuffled[name]) for name in fisher)
    assert not torch.equal(shuffle_within_tensors(fisher, 2)["a"], shuffled["a"])
    assert torch.equal(shuffle_within_tensors({"b": fisher["b"]}, 1)["b"], shuffled["b"]), "tensors are independent of each other"
    same = shuffle_within_tensors({"a": torch.arange(35), "b": torch.arange(35)}, 1)
    assert not torch.equal(same["a"], same["b"]), "two tensors of one size got one permutation"


def test_statistics_by_hand():
    found = statistics(F)
    assert (found.entries, found.trace, found.zeros) == (5, 20.0, 1)
    assert found.effective_rank == pytest.approx(400 / (1 + 4 + 25 + 144))
    assert found.condition_ratio == 12.0
    a = found.tensors["a"]
    assert (a.entries, a.share, a.mean, a.max, a.zeros, a.q05, a.q95) == (4, 0.4, 2.0, 5.0, 1, 0.0, 5.0)
    assert found.tensors["b"].share == 0.6


def test_statistics_of_extremes():
    assert statistics({"a": torch.full((10,), 3.0)}).effective_rank == pytest.approx(10)
    single = statistics({"a": torch.eye(1, 10)})
    assert (single.effective_rank, single.condition_ratio) == (1.0, 1.0)
    nothing = statistics({"a": torch.zeros(3)})
    assert (nothing.trace, nothing.effective_rank, nothing.condition_ratio, nothing.tensors["a"].share) == (0, 0, 0, 0)
