"""What an arithmetic costs in accuracy: the error of each tensor of a Fisher against the same images in float64.

    error = |F - F64| / |F64|

The norms are Euclidean, over the entries of the tensor.
"""

import statistics
from collections.abc import Mapping

import torch
from torch import Tensor

from anchored.fisher.diagonal import DiagonalFisher


def relative_errors(fisher: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> dict[str, float]:
    """The formula above, tensor by tensor; 0 where both are zero.

    Raises:
        KeyError: `exact` lacks a tensor of `fisher`.
    """
    return {name: _relative(tensor.double(), exact[name].double()) for name, tensor in fisher.items()}


def in_words(errors: Mapping[str, float]) -> str:
    """The worst and the median error of a set of tensors."""
    worst = max(errors, key=errors.__getitem__)
    return f"worst {errors[worst]:.1e} ({worst}), median {statistics.median(errors.values()):.1e}"


def standard_errors(fisher: DiagonalFisher) -> str:
    """The standard error of an estimate in words; empty for an exact Fisher."""
    errors = fisher.relative_errors
    return f"relative standard error of a tensor: {in_words(errors)}" if errors else ""


def _relative(found: Tensor, exact: Tensor) -> float:
    distance = float(torch.linalg.vector_norm(found - exact))
    return distance / float(torch.linalg.vector_norm(exact)) if distance else 0.0
