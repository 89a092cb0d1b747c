"""Which entries of a large Fisher are compared."""

import numpy as np
import torch

from anchored.diagnostics.sample import places, take


def test_all_entries_where_there_are_few():
    assert places(10, 10).tolist() == list(range(10))


def test_one_of_each_stretch_where_there_are_many():
    """Sorted, within bounds, the same every time, and every tensor in proportion to its size."""
    chosen = places(1000, 100)
    assert np.array_equal(chosen, places(1000, 100))
    assert np.array_equal(chosen // 10, np.arange(100))
    assert len(set((chosen % 10).tolist())) == 10, "not every tenth: rows of a matrix would repeat"
    odd = places(1003, 100)
    assert odd[0] >= 0
    assert odd[-1] <= 1002
    assert (np.diff(odd) >= 0).all()


def test_entries_are_taken_across_tensors():
    """By sorted names, so that two files with other orders give the same places."""
    tensors = {"b": torch.arange(4.0).view(2, 2) + 10, "a": torch.arange(3.0), "c": torch.tensor(20.0)}
    everything = [0, 1, 2, 10, 11, 12, 13, 20]
    assert take(tensors, np.arange(8)).tolist() == everything
    assert take(dict(reversed(tensors.items())), np.array([1, 3, 7])).tolist() == [1, 10, 20]
    assert take({"a": torch.arange(4.0).view(2, 2).T}, np.arange(4)).tolist() == [0, 2, 1, 3]
