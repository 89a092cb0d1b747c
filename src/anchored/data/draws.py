"""Random numbers of views, apart from their application: arrays of shape (B, V, ...) that can be sliced and joined.

A view drawn from its image's own generator is the same in any batch and any shard; a batch of draws is applied at once.
"""

from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np


@dataclass(frozen=True)
class Drawn:
    """Base of the draws of a recipe; every field is an array that starts with (B, V)."""

    def views(self, start: int, stop: int | None) -> Self:
        """The draws of the views from `start` to `stop`."""
        return type(self)(**{name: values[:, start:stop] for name, values in vars(self).items()})


Draws = TypeVar("Draws", bound=Drawn)


def join(draws: list[Draws]) -> Draws:
    """The draws of several images, one after the other."""
    return type(draws[0])(**{name: np.concatenate([getattr(each, name) for each in draws]) for name in vars(draws[0])})
