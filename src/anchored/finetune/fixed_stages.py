"""What the stages that all arms leave fixed make of the images: computed once for all cells of a job, and kept in memory.

Without augmentation the same image gives the same activation in every epoch and cell. For N images it takes N times the size of
one activation, in fp32 on the CPU: 57 kB for 37 tokens of a ViT-S, 605 kB for 197 tokens of a ViT-B. What does not fit is refused.
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
from anchored.errors import EnvironmentFailure
from anchored.finetune.memory import available_memory

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
        self._activations = torch.empty(0)

    def tail(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """From activations to features (B, D), through the trained stages of `model`."""
        return split(model, self._stages)[1]

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Activations of the store's `rows`, which `add` was given, on the device."""
        return self._activations[torch.from_numpy(self._places[rows])].to(self._device)

    @torch.no_grad()
    def add(self, rows: NDArray[np.int64]) -> None:
        """Computes the activations of `rows` that are not there yet.

        Raises:
            EnvironmentFailure: they do not fit into memory, which the first few of them tell.
        """
        missing = np.unique(rows[self._places[rows] < 0])
        before = len(self._activations)
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            made = self._stem(to_input(self._store.layer("image")[part], self._entry, self._device)).float().cpu()
            if not start:
                self._require_room(before, len(missing), made[0].nbytes)
                # Room for all at once: a list of parts and their concatenation would take twice the memory.
                room = made.new_empty((len(missing), *made.shape[1:]))
                self._activations = torch.cat([self._activations, room]) if before else room
            self._activations[before + start : before + start + len(part)] = made
        self._places[missing] = before + np.arange(len(missing))

    def _require_room(self, before: int, more: int, each: int) -> None:
        """Refuses `more` activations of `each` bytes behind the `before` that are there: a full machine kills without a word."""
        # While old and new ones are joined, both are there.
        needed, available, data = (before + more) * each, available_memory(), self._store.name
        if available is not None and needed > available:
            raise EnvironmentFailure(
                f"training.frozen_stages keeps what the fixed stages make of {before + more:,} images of {data} in memory, "
                f"{each:,} bytes each: {needed:,} bytes are needed, {available:,} available.",
                f"leave training.frozen_stages out (all is trained then), lower datasets.{data}.size, or take a larger machine.",
            )
