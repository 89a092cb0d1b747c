"""A bounded number of a Fisher's entries, at places that any Fisher of the same shapes shares.

Of n entries at most `most` are taken: one from each of `most` equal stretches of the entries in order, at a place within the
stretch drawn from a seeded generator. Every tensor is represented in proportion to its size, the places are the same in every
run, and nothing of the size of the Fisher is allocated.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

MOST = 1_000_000
MOST_OF_TENSOR = 100_000
_SEED = 20240

Values = NDArray[np.floating]


def places(entries: int, most: int = MOST) -> NDArray[np.int64]:
    """Up to `most` of the numbers 0 to `entries`, ascending; all of them where there are no more."""
    if entries <= most:
        return np.arange(entries, dtype=np.int64)
    jitter = np.random.default_rng(_SEED).random(most)
    return np.minimum(((np.arange(most) + jitter) * (entries / most)).astype(np.int64), entries - 1)


def take(tensors: Mapping[str, Tensor], chosen: NDArray[np.int64]) -> Values:
    """The entries of all tensors, in the order of their names, at the places `chosen` (ascending)."""
    parts, start = [], 0
    for name in sorted(tensors):
        stop = start + tensors[name].numel()
        first, last = np.searchsorted(chosen, (start, stop))
        parts.append(tensors[name].detach().cpu().flatten().numpy()[chosen[first:last] - start])
        start = stop
    return np.concatenate(parts)


def entry_count(tensors: Mapping[str, Tensor]) -> int:
    """Number of entries of all tensors."""
    return sum(tensor.numel() for tensor in tensors.values())
