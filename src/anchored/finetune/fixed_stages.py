"""What the stages that all arms leave fixed make of the images: computed once for all cells of a job, and kept in memory.

Without augmentation the same image gives the same activation in every epoch and cell. For N images it takes N times the size of
one activation, in fp32 on the CPU: 57 kB for 37 tokens of a ViT-S, 605 kB for 197 tokens of a ViT-B.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anchored.backbones.features import to_input
from anchored.backbones.split import split
from anchored.data.store import Store
from anchored.device import place

# Images of a forward pass; on a CPU larger ones leave the cache.
_BATCH = 128


class FixedStages:
    """Activations of a store's images behind the stem and the first stages.

    Args:
        make_backbone: the network at the anchor.
        stages: number of fixed stages after the stem.
        store: the images.
        entry: the backbone's entry in the plan.
        device: where activations are computed and used.

    Raises:
        ConfigError: the architecture cannot be cut.
    """

    def __init__(
        self, make_backbone: Callable[[], nn.Module], stages: int, store: Store, entry: Mapping[str, Any], device: torch.device
    ) -> None:
        self._stages, self._store, self._entry, self._device = stages, store, entry, device
        model = place(make_backbone(), device).eval()
        self._stem, _ = split(model, stages)
        self._places = np.full(len(store.packed), -1, dtype=np.int64)
        self._activations: Tensor | None = None

    def tail(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """From activations to features (B, D), through the trained stages of `model`."""
        return split(model, self._stages)[1]

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Activations of the store's `rows`, which `add` was given, on the device."""
        assert self._activations is not None
        return self._activations[torch.from_numpy(self._places[rows])].to(self._device)

    @torch.no_grad()
    def add(self, rows: NDArray[np.int64]) -> None:
        """Computes the activations of `rows` that are not there yet."""
        missing = np.unique(rows[self._places[rows] < 0])
        if not len(missing):
            return
        found = [] if self._activations is None else [self._activations]
        self._places[missing] = sum(map(len, found)) + np.arange(len(missing))
        for part in np.array_split(missing, -(-len(missing) // _BATCH)):
            inputs = to_input(self._store.layer("image")[part], self._entry, self._device)
            found.append(self._stem(inputs).float().cpu())
        self._activations = torch.cat(found)
