"""One rule a layer type: how the squared per-image gradients of its parameters follow from its inputs and output gradients."""

from anchored.fisher.rules import conv, linear, norm, scale, tokens  # noqa: F401 - importing them fills the registry
from anchored.fisher.rules.registry import Call, Rule, find

__all__ = ["Call", "Rule", "find"]
