"""Training single cells of the miniature plan without files around them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from anchored.finetune.loop import Material, train_cell
from anchored.finetune.state import CellState
from anchored.finetune.step import _material
from anchored.paths import Paths

CPU = torch.device("cpu")


@pytest.fixture
def material(mini: Paths, mini_plan: dict[str, Any]) -> Callable[[str], Material]:
    """material(cell) reads what that cell of the miniature plan needs."""
    return lambda cell: _material(mini_plan, mini_plan["cells"][cell], mini, CPU)


@pytest.fixture
def train(mini_plan: dict[str, Any], material: Callable[[str], Material], tmp_path: Path) -> Callable[..., CellState]:
    """train(cell, hyper={...}, training={...}, **entry) trains a cell with changed settings; returns its final state."""

    def run(name: str, *, hyper: dict | None = None, training: dict | None = None, fisher: Any = None, **entry: Any) -> CellState:
        cell = mini_plan["cells"][name]
        cell = cell | entry | {"hyper": cell["hyper"] | (hyper or {}), "training": cell["training"] | (training or {})}
        read = material(name)
        if fisher is not None:
            read = Material(read.store, read.backbone, read.make_backbone, fisher, CPU)
        return train_cell(name, cell, read, CellState("key"), tmp_path / "state.pt", lambda _: None)

    return run
