"""LayerScale, y = gamma * a.

d loss_n / d gamma = sum_t g_nt * a_nt
"""

from collections.abc import Sequence

from torch import nn

from anchored.fisher.rules.products import add_vector_squares
from anchored.fisher.rules.registry import Call, Sums, register
from anchored.fisher.rules.rows import channels_last, joined


def refuses_inplace(module: nn.Module) -> str:
    """In place, the input that the rule needs is gone when the hook sees it."""
    return "it scales its input in place" if getattr(module, "inplace", False) else ""


@register("timm.layers:LayerScale", parameters=("gamma",), refuses=refuses_inplace)
def layer_scale(module: nn.Module, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """Channels last."""
    add_vector_squares(sums["gamma"], joined([call.g * call.a for call in calls], images))


@register("timm.layers:LayerScale2d", parameters=("gamma",), refuses=refuses_inplace)
def layer_scale_2d(module: nn.Module, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """Channels second."""
    add_vector_squares(sums["gamma"], joined([channels_last(call.g * call.a) for call in calls], images))
