"""Statistics of a Fisher: the figures by hand, and how much memory they take."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from fisher_cases import random

from anchored.fisher import condition, statistics
from anchored.fisher.statistics import flat, quantiles


def test_extremes_are_those_of_the_non_zero_entries():
    found = statistics({"a": torch.tensor([[0.0, 1.0], [2.0, 5.0]]), "b": torch.tensor([12.0])})
    assert (found.min, found.max, found.condition_number) == (1.0, 12.0, 12.0)
    nothing = statistics({"a": torch.zeros(3)})
    assert (nothing.min, nothing.max, nothing.condition_number) == (0, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 19, 20, 101])
def test_quantiles_are_the_entries_of_the_sorted_list(count):
    """The smallest entry such that a share s of all is not above it; sorted lists are the slow truth."""
    values = random(count, seed=count).square().float().numpy()
    ordered = sorted(values.tolist())
    for share in (0.05, 0.5, 0.95, 1.0):
        expected = next(value for index, value in enumerate(ordered, start=1) if index >= share * count - 1e-9)
        assert quantiles(values.copy(), (share,)) == [expected]
    assert quantiles(values.copy(), (0.0, 1.0)) == [ordered[0], ordered[-1]]


def test_zeros_can_be_left_out():
    values = np.array([0.0, 3.0, 0.0, 1.0, 2.0])
    assert quantiles(values, (0.0, 0.5, 1.0), skip=2) == [1.0, 2.0, 3.0]


def test_sums_in_pieces_are_the_sums(monkeypatch):
    """A tensor of one piece and three entries more; a transposed one, which has no flat view."""
    fisher = {"a": random(7, 5).square().float(), "b": random(3, 4).square().float().T}
    expected = statistics(fisher)
    monkeypatch.setattr(importlib.import_module("anchored.fisher.statistics"), "_PIECE", 16)  # the package has a function so called
    found = statistics(fisher)
    assert found.trace == pytest.approx(expected.trace, rel=1e-14)
    assert found.effective_rank == pytest.approx(expected.effective_rank, rel=1e-14)
    assert found.trace == pytest.approx(sum(float(v.double().sum()) for v in fisher.values()), rel=1e-14)


def test_flat_is_a_copy():
    """It is sorted in place afterwards."""
    tensor = torch.tensor([3.0, 1.0])
    flat([tensor]).sort()
    assert tensor.tolist() == [3.0, 1.0]


def test_conditioning_leaves_its_argument_alone():
    """The copy is changed in place; the argument must not be."""
    fisher = {"a": torch.tensor([0.0, 1.0, 5.0])}
    for kind, value in (("floor", 0.1), ("clip", 0.5), ("layer-mean", None), ("normalise", None), ("none", None)):
        condition(fisher, kind, value)["a"].add_(1)
        assert fisher["a"].tolist() == [0.0, 1.0, 5.0]


_MEMORY = """
import resource, sys, torch
from anchored.diagnostics.correlation import Sampled
from anchored.diagnostics.summary import summarise
fisher = {f"blocks.{i}.weight": torch.rand(200_000) ** 8 for i in range(40)}
size = 4 * 40 * 200_000
warm = {f"blocks.{i}.weight": torch.rand(100) for i in range(3)}
summarise(warm), Sampled.of(warm)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
summarise(fisher), Sampled.of(fisher)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss")
def test_a_summary_needs_at_most_two_copies_beside_the_fisher():
    """86 million parameters are 0.34 GB; float64 copies of all and kthvalue's indices made that 3 GB."""
    done = subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.4
