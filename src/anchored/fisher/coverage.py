"""Every parameter belongs to exactly one layer with a rule, and is used there only; else it is named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from anchored.fisher.errors import UncoveredParameters
from anchored.fisher.rules import Rule, find


@dataclass(frozen=True)
class Layer:
    """A module and its rule. `parameters` maps its own names of the parameters to measure to those of the model."""

    name: str
    module: nn.Module
    rule: Rule
    parameters: dict[str, str]


def layers(model: nn.Module, names: Sequence[str]) -> list[Layer]:
    """The layers that cover the parameters `names`, each exactly once.

    Raises:
        UncoveredParameters: lists every parameter that is shared, or whose module has no rule for it.
    """
    wanted = set(names)
    shared = _shared(model)
    found: list[Layer] = []
    problems: list[str] = []
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        own = {local: prefix + local for local, _ in module.named_parameters(recurse=False) if prefix + local in wanted}
        if not own:
            continue
        rule = find(module)
        refusal = rule.refuses(module) if rule else ""
        kind = type(module).__name__
        for local, name in own.items():
            if name in shared:
                problems.append(f"{name} (shared with {', '.join(shared[name])})")
            elif rule is None:
                problems.append(f"{name} (no rule for {kind})")
            elif refusal:
                problems.append(f"{name} ({kind}: {refusal})")
            elif local not in rule.parameters:
                problems.append(f"{name} (not in the rule for {kind})")
        if rule is not None:
            found.append(Layer(path, module, rule, own))
    if problems:
        raise UncoveredParameters(
            f"no exact batched rule for {len(problems)} of {len(names)} parameters: {'; '.join(problems)}.",
            'backend="loop" is exact for any model.',
        )
    return found


class DirectUse(TorchFunctionMode):
    """Notes every parameter that takes part in a computation while its own module is not running.

    `F.linear(x, model.fc.weight)` in a loss, or a layer that borrows another's weight, has a gradient that no rule sees.
    """

    def __init__(self, watched: Sequence[Layer]) -> None:
        super().__init__()
        self.names: list[str] = []
        self._owner = {
            id(parameter): (layer.parameters[local], layer.module)
            for layer in watched
            for local, parameter in layer.module.named_parameters(recurse=False)
            # Parameters of the model itself are used in methods that hooks do not see begin and end.
            if local in layer.parameters and layer.name
        }
        self._running: list[nn.Module] = []
        self._modules = [layer.module for layer in watched]
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "DirectUse":
        for module in self._modules:
            self._handles.append(module.register_forward_pre_hook(self._begin))
            self._handles.append(module.register_forward_hook(self._end, always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)
        for handle in self._handles:
            handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _NO_COMPUTATION and isinstance(result, Tensor | tuple | list):
            for parameter in _parameters((args, kwargs)):
                name, module = self._owner.get(id(parameter), ("", None))
                if name and name not in self.names and not any(module is running for running in self._running):
                    self.names.append(name)
        return result

    def _begin(self, module: nn.Module, _: Any) -> None:
        self._running.append(module)

    def _end(self, module: nn.Module, _: Any, __: Any) -> None:
        self._running.pop()


# These read a parameter without a gradient: its value by another name, or facts about it.
_NO_COMPUTATION = {
    torch.Tensor.detach,
    torch.Tensor.data.__get__,  # type: ignore[attr-defined]
    torch.Tensor.grad.__get__,  # type: ignore[union-attr]
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.size,
    torch.Tensor.stride,
}


def _parameters(value: Any) -> Iterator[nn.Parameter]:
    if isinstance(value, nn.Parameter):
        yield value
    elif isinstance(value, dict):
        yield from _parameters(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _parameters(part)


def _shared(model: nn.Module) -> dict[str, list[str]]:
    """Parameters that have several names: name to the other names."""
    by_id: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_id.setdefault(id(parameter), []).append(name)
    return {names[0]: names[1:] for names in by_id.values() if len(names) > 1}
