"""The table of rules, keyed by exact type.

A rule is a pure function of a module's calls in one batch:

    rule(module, calls, images, sums)        adds sum_n (d loss_n / d p)^2 to sums[p] for each p in sums

A call is (a, g): the module's input and the gradient at its output. Index conventions: `images` = B; the rows of a call are
image-major, so (R, ...) reshapes to (B, R/B, ...); T is everything that is summed inside an image (views, tokens, positions),
joined over all calls of the module before the square; d_in and d_out are the features of a and g.

Exact, because a subclass may compute something else: timm's `LayerNorm2d` is an `nn.LayerNorm` that normalises another dimension.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Sums = Mapping[str, Tensor]


class Call(NamedTuple):
    """One call of a module.

    a: its input, rows first. g: gradient of the losses' sum at its output. note: what the rule's `attach` had to remember.
    """

    a: Tensor
    g: Tensor
    note: Any = None


Accumulate = Callable[[nn.Module, Sequence[Call], int, Sums], None]
Record = Callable[[Tensor, Tensor, Any], None]
"""record(a, out, note): called once for each call of the module."""
Attach = Callable[[nn.Module, Record], list[RemovableHandle]]


def attach_output(module: nn.Module, record: Record) -> list[RemovableHandle]:
    """The usual place: the module's first input and its output."""
    return [module.register_forward_hook(lambda _, inputs, out: record(inputs[0], out, None))]


def accepts(module: nn.Module) -> str:
    """Refuses nothing."""
    return ""


@dataclass(frozen=True)
class Rule:
    """What is known about a layer type.

    Args:
        parameters: names of the parameters it covers.
        accumulate: the function described above.
        attach: hooks the module and reports each call.
        refuses: why this very module is not covered; empty if it is.
    """

    parameters: tuple[str, ...]
    accumulate: Accumulate
    attach: Attach = attach_output
    refuses: Callable[[nn.Module], str] = accepts


def register(
    *types: type | str,
    parameters: tuple[str, ...] = ("weight", "bias"),
    attach: Attach = attach_output,
    refuses: Callable[[nn.Module], str] = accepts,
) -> Callable[[Accumulate], Accumulate]:
    """Declares a function the rule of `types`: classes, or "module:Class" for a library that is imported only by its users."""

    def declare(accumulate: Accumulate) -> Accumulate:
        rule = Rule(parameters, accumulate, attach, refuses)
        for kind in types:
            _by_name[kind if isinstance(kind, str) else f"{kind.__module__}:{kind.__qualname__}"] = rule
            if not isinstance(kind, str):
                _by_type[kind] = rule
        return accumulate

    return declare


def find(module: nn.Module) -> Rule | None:
    """The rule of exactly this module's type, if there is one."""
    kind = type(module)
    if kind not in _by_type and kind.__module__.startswith("timm."):
        _resolve_timm()
    return _by_type.get(kind)


_by_type: dict[type, Rule] = {}
_by_name: dict[str, Rule] = {}


def _resolve_timm() -> None:
    """Looks up the timm classes by the path they are published under; a timm that lacks one has no rule for it."""
    for name, rule in _by_name.items():
        module, _, attribute = name.partition(":")
        if module.startswith("timm."):
            kind = getattr(importlib.import_module(module), attribute, None)
            if kind is not None:
                _by_type[kind] = rule
