"""Resume state: after every epoch all that the next one needs, in `work/<cell>/state.pt`, which no engine declares.

A killed or pre-empted job continues after its last whole epoch and ends with the bytes of an uninterrupted one: batch
orders derive from (seed, epoch), so no generator has to be saved. A state of another key (plan entry, inputs or code
changed) is ignored.
"""

import io
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anchored.files import write_bytes

log = logging.getLogger("anchored")


@dataclass
class CellState:
    """Where a cell stands.

    Attributes:
        key: digest of everything that determines the cell's result.
        epoch: whole epochs done.
        network: backbone and head.
        optimizer: the optimiser's state; empty once finished.
        history: one line of measures an epoch.
        logits: by "<epoch>/<split>", the predictions stored so far.
        finished: nothing is left to do.
    """

    key: str
    epoch: int = 0
    network: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    logits: dict[str, Tensor] = field(default_factory=dict)
    finished: bool = False

    def save(self, path: Path) -> None:
        """Writes the state, whole or not at all."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, key: str) -> "CellState":
        """The state at `path` if it has this key, else a fresh one."""
        try:
            state = cls(**torch.load(path, map_location="cpu", weights_only=True))
        except FileNotFoundError:
            return cls(key)
        except Exception as error:  # an unreadable state only costs time: the cell starts again
            log.warning("%s cannot be read (%s); the cell starts from its anchor", path, error)
            return cls(key)
        if state.key != key:
            log.info("%s belongs to another plan, input or code; the cell starts from its anchor", path)
            return cls(key)
        return state
