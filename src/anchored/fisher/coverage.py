"""Every parameter belongs to exactly one layer with a rule, or is followed by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from anchored.fisher.rules import Rule, find


@dataclass(frozen=True)
class Layer:
    """A module and its rule. `parameters` maps its own names of the parameters to measure to those of the model."""

    name: str
    module: nn.Module
    rule: Rule
    parameters: dict[str, str]


def layers(model: nn.Module, names: Sequence[str]) -> list[Layer]:
    """The layers whose rules cover some of the parameters `names`, each exactly once.

    What they leave is followed by itself (`trace.py`): parameters of modules without a rule, those that a rule does not know or
    refuses, and shared ones, whose gradients in several layers are added before the square.
    """
    wanted = set(names) - _shared(model)
    found: list[Layer] = []
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        rule = find(module)
        if rule is None or rule.refuses(module):
            continue
        own = {local: prefix + local for local, _ in module.named_parameters(recurse=False)}
        covered = {local: name for local, name in own.items() if name in wanted and local in rule.parameters}
        if covered:
            found.append(Layer(path, module, rule, covered))
    return found


def _shared(model: nn.Module) -> set[str]:
    """Parameters that have several names."""
    by_id: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_id.setdefault(id(parameter), []).append(name)
    return {name for names in by_id.values() if len(names) > 1 for name in names}
