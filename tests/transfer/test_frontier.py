"""Statistics of a frontier against numbers computed by hand, and the frontier against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchored.transfer.frontier import forgotten_at, frontier, gain_kept, mean_forgotten

# Frozen (0, 0), free (1, 4), one good cell (.5, 1), one that it beats (.4, 2), one as dear as free but worse (.9, 4).
GAINS, FORGOTTEN = np.array([0.0, 1.0, 0.4, 0.5, 0.9]), np.array([0.0, 4.0, 2.0, 1.0, 4.0])


def test_beaten_cells_are_left_out() -> None:
    front = frontier(GAINS, FORGOTTEN)
    assert front.gains.tolist() == [0.0, 0.5, 1.0]
    assert front.forgotten.tolist() == [0.0, 1.0, 4.0]


def test_statistics_by_hand() -> None:
    """Two straight pieces: from (0, 0) to (1/2, 1) and on to (1, 4)."""
    front = frontier(GAINS, FORGOTTEN)
    assert forgotten_at(front, 0.25) == pytest.approx(0.5)
    assert forgotten_at(front, 0.75) == pytest.approx(2.5)
    assert mean_forgotten(front) == pytest.approx(0.5 * 0.5 + 0.5 * 2.5)
    assert gain_kept(front, 0.4) == pytest.approx(0.2)
    assert gain_kept(front, 2.5) == pytest.approx(0.75)


def test_outside_of_the_cells() -> None:
    """An arm that forgets less than the frozen backbone while it gains is level below; one that never gets there has no value."""
    front = frontier(np.array([0.2, 0.8, 1.2]), np.array([-0.1, 1.0, 3.0]))
    assert forgotten_at(front, 0.0) == pytest.approx(-0.1)
    assert mean_forgotten(front) == pytest.approx(0.2 * -0.1 + 0.6 * 0.45 + 0.2 * (1.0 + 2.0) / 2)
    short = frontier(np.array([0.0, 0.8]), np.array([0.0, 1.0]))
    assert np.isnan(mean_forgotten(short))
    assert np.isnan(forgotten_at(short, 0.9))
    assert np.isnan(gain_kept(short, -1.0))


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12))
def test_frontier_is_what_no_other_cell_beats(cells: list[tuple[int, int]]) -> None:
    """The oracle compares all pairs; ties are frequent."""
    gains, forgotten = np.array(cells, float).T
    kept = {
        (g, f) for g, f in cells if not any((a >= g and b <= f) and (a, b) != (g, f) for a, b in cells)
    }
    front = frontier(gains, forgotten)
    assert list(zip(front.gains, front.forgotten, strict=True)) == sorted(kept)
