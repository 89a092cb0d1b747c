"""Correlations against scipy's, and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from anchored.diagnostics.correlation import Sampled, compare, log_correlation, overlap, rank_correlation, ranks


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_spearmans(ties):
    """With ties, too: a FIM has thousands of zeros."""
    rng = np.random.default_rng(0)
    one, other = rng.random(200) ** 4, rng.random(200) ** 4
    other += one
    if ties:
        one, other = one.round(1), other.round(1)
    assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)
    assert ranks(one) == pytest.approx(stats.rankdata(one))


def test_log_correlation_is_over_entries_that_are_positive_in_both():
    one = np.array([0.0, 1.0, 10.0, 100.0, 5.0])
    other = np.array([7.0, 2.0, 20.0, 200.0, 0.0])
    assert log_correlation(one, other) == pytest.approx(1.0)
    expected = stats.pearsonr(np.log([1.0, 3, 7]), np.log([2.0, 1, 9])).statistic
    assert log_correlation(np.array([1.0, 3, 7]), np.array([2.0, 1, 9])) == pytest.approx(expected)


def test_what_is_constant_has_no_correlation():
    assert math.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    assert math.isnan(log_correlation(np.zeros(4), np.arange(4.0)))
    assert math.isnan(rank_correlation(np.ones(1), np.ones(1)))


def test_overlap_of_the_largest():
    one = np.arange(200.0)
    assert overlap(one, one) == 1.0
    assert overlap(one, -one) == 0.0
    other = one.copy()
    other[198], other[0] = -1, 500
    assert overlap(one, other) == 0.5
    assert overlap(np.zeros(3), np.zeros(3)) == 1.0


def test_scales_of_layers_are_told_apart_from_order_within():
    """Two random Fishers whose layers differ in scale correlate over all entries and not within: both must be printed."""
    generator = torch.Generator().manual_seed(0)
    one, other = ({f"{k}": torch.rand(500, generator=generator) * 10.0**k for k in range(5)} for _ in range(2))
    found = compare(Sampled.of(one), Sampled.of(other))
    assert found is not None
    assert found.sampled == 2500
    assert found.rank > 0.9
    assert all(abs(value) < 0.15 for value in found.rank_of.values())
    assert found.top == pytest.approx(0.08, abs=0.1)


def test_only_fims_of_the_same_parameters_are_compared():
    one = Sampled.of({"a": torch.ones(2, 3)})
    assert compare(one, Sampled.of({"a": torch.ones(3, 2)})) is None
    assert compare(one, Sampled.of({"b": torch.ones(2, 3)})) is None


def test_large_fims_are_sampled(monkeypatch):
    """Above the bound, at shared places: equal Fishers stay equal."""
    monkeypatch.setattr("anchored.diagnostics.correlation.MOST_OF_TENSOR", 50)
    fisher = {"a": torch.rand(40, 30)}
    sampled = Sampled.of(fisher)
    assert len(sampled.tensors["a"]) == 50
    found = compare(sampled, Sampled.of({"a": fisher["a"] * 2}))
    assert found is not None
    assert found.rank_of["a"] == pytest.approx(1.0)
