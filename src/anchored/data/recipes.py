"""The recipes of random views that a plan can name, behind one interface."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anchored.data.dino_views import DinoViewMaker
from anchored.data.store import Store
from anchored.data.views import ViewMaker


class Maker(Protocol):
    """Draws and makes the views of images of a bank."""

    def draw(self, rng: np.random.Generator, rows: NDArray[np.int64]) -> Any:
        """Random numbers for all views of the bank images `rows`; those of several calls are put together by `draws.join`."""

    def __call__(self, rows: NDArray[np.int64], draws: Any) -> tuple[Tensor, Tensor | None]:
        """Global views (B, G, 3, S, S) and local views (B, L, 3, s, s) or None, float in [0, 1] before normalisation."""


def view_maker(store: Store, policy: Mapping[str, Any], device: torch.device) -> Maker:
    """The maker of the recipe that `policy`, a `views` of the plan, names.

    Raises:
        InputError: the recipe needs a layer that the bank does not have.
    """
    return (DinoViewMaker if policy["recipe"] == "dino" else ViewMaker)(store, policy, device)
