"""Linear layers, y = a W^T + b over any leading dimensions.

d loss_n / d W = sum_t g_nt a_nt^T        d loss_n / d b = sum_t g_nt
"""

from collections.abc import Sequence

from torch import nn

from anchored.fisher.rules.products import add_outer_squares, add_vector_squares, reached_tokens
from anchored.fisher.rules.registry import Call, Sums, register
from anchored.fisher.rules.rows import joined


@register(nn.Linear, "timm.layers:Linear")
def linear(module: nn.Module, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """Tokens, windows and views are summed before the square: squaring them one by one makes layers up to 60 times too small."""
    g = joined([call.g for call in calls], images)
    if "weight" in sums:
        add_outer_squares(sums["weight"], *reached_tokens(joined([call.a for call in calls], images), g))
    if "bias" in sums:
        add_vector_squares(sums["bias"], g)
