"""What each arm trains and what anchors it.

| arm | trains | anchor |
| --- | --- | --- |
| erm | all | none |
| freeze | all after the stem and the first k stages | none |
| l2sp | all | f = 1 |
| ewc | all | the conditioned Fisher |
| ewc-shuffled | all | the conditioned Fisher, permuted inside each tensor |

`linear-probe` trains no network: `linear_probe.py`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from anchored.backbones.build import stage_parameters
from anchored.errors import ConfigError
from anchored.finetune.anchor import Anchor
from anchored.fisher import condition, shuffle_within_tensors
from anchored.plan.naming import derive_seed


def freeze_stages(model: nn.Module, stages: int, *, cell: str) -> None:
    """Switches off the gradients of the stem and the first `stages` stages.

    Raises:
        ConfigError: the backbone has no more than `stages` stages.
    """
    groups = stage_parameters(model)
    if stages >= len(groups) - 1:
        raise ConfigError(
            f"cell {cell} freezes {stages} stages, its backbone has {len(groups) - 1}.",
            "lower arms.freeze.stages, or training.frozen_stages where that set it: something has to train (the arm linear-probe "
            "freezes everything).",
        )
    frozen = {name for group in groups[: stages + 1] for name in group}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)


def make_anchor(model: nn.Module, cell: Mapping[str, Any], fisher: Mapping[str, Tensor] | None) -> Anchor:
    """The anchor of a cell at the model's present parameters; strength 0 for arms without one.

    Args:
        model: the backbone at the anchor point.
        cell: the cell's entry in the plan.
        fisher: the raw Fisher for the arms ewc and ewc-shuffled.
    """
    strength = cell["hyper"].get("strength", 0.0)
    if fisher is None:
        return Anchor(model, 1.0, strength)
    weights = condition(fisher, cell["conditioning"]["kind"], cell["conditioning"]["value"])
    if cell["arm"] == "ewc-shuffled":
        weights = shuffle_within_tensors(weights, derive_seed(cell["seed"], "shuffle"))
    return Anchor(model, weights, strength)
