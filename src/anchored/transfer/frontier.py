"""How much is forgotten at a matched target accuracy: the frontier of an arm's cells, and its statistics.

For a seed, with a the target accuracy of a cell and f what it lost of the pre-training,

    gain      u = (a - a_frozen) / (a_free - a_frozen)         0: the backbone did not move; 1: free fine-tuning
    frontier  the cells that no other cell of the arm beats in both u and f, joined by straight lines; below the first
              cell it is level: who reaches more accuracy at that price reaches less as well

    forgotten_at(u)     the frontier at u
    mean_forgotten      its mean over 0 <= u <= 1                            (the area below it)
    gain_kept(level)    the largest u whose price is at most `level`

The best of several noisy cells looks better than it is; all arms have the same number of cells, so all look equally better.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frontier:
    """Cells that no other cell beats, both arrays strictly rising."""

    gains: Floats
    forgotten: Floats


def frontier(gains: Floats, forgotten: Floats) -> Frontier:
    """The frontier of cells.

    Args:
        gains: (cells,) u.
        forgotten: (cells,) f.
    """
    order = np.lexsort((-gains, forgotten))
    # Cheapest first; among equals the most accurate. A dearer cell stays only if it is more accurate than all before it.
    before = np.concatenate([[-np.inf], np.maximum.accumulate(gains[order])[:-1]])
    kept = order[gains[order] > before]
    return Frontier(gains[kept], forgotten[kept])


def forgotten_at(front: Frontier, gain: float) -> float:
    """What an arm forgets at `gain`; NaN where it does not get there."""
    return float(np.interp(gain, front.gains, front.forgotten, right=np.nan))


def mean_forgotten(front: Frontier) -> float:
    """Mean of the frontier over gains from 0 to 1; NaN where the arm does not get to 1."""
    if front.gains[-1] < 1:
        return float("nan")
    inside = front.gains[(front.gains > 0) & (front.gains < 1)]
    corners = np.concatenate([[0.0], inside, [1.0]])
    return float(np.trapezoid(np.interp(corners, front.gains, front.forgotten), corners))


def gain_kept(front: Frontier, level: float) -> float:
    """The largest gain whose price is at most `level`; NaN where every cell costs more."""
    return float(np.interp(level, front.forgotten, front.gains, left=np.nan))
