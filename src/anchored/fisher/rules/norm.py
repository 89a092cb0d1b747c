"""Normalisations with a scale and a shift, y = w * xhat + b.

    d loss_n / d w = sum_t g_nt * xhat_nt        d loss_n / d b = sum_t g_nt

They differ in xhat: which numbers share a mean and a variance, and where the channels are.
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from anchored.fisher.rules.products import add_vector_squares
from anchored.fisher.rules.registry import Call, Record, Sums, register
from anchored.fisher.rules.rows import channels_last, joined


@register(nn.LayerNorm, "timm.layers:LayerNorm")
def layer_norm(module: nn.Module, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """Over the last dimensions, which are also those of w and b."""
    assert isinstance(module, nn.LayerNorm)
    flat = len(module.normalized_shape)

    def xhat(a: Tensor) -> Tensor:
        return F.layer_norm(a, module.normalized_shape, eps=module.eps)

    _add(calls, images, sums, xhat, lambda tensor: tensor.flatten(-flat))


@register("timm.layers:LayerNorm2d")
def layer_norm_2d(module: nn.Module, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """timm's: over the channels of (R, C, H, W)."""
    assert isinstance(module, nn.LayerNorm)

    def xhat(a: Tensor) -> Tensor:
        return F.layer_norm(channels_last(a), module.normalized_shape, eps=module.eps).movedim(-1, 1)

    _add(calls, images, sums, xhat, channels_last)


@register(nn.GroupNorm, "timm.layers:GroupNorm", "timm.layers:GroupNorm1")
def group_norm(module: nn.Module, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """Over the channels of a group and all positions; w and b belong to channels."""
    assert isinstance(module, nn.GroupNorm)

    def xhat(a: Tensor) -> Tensor:
        return F.group_norm(a, module.num_groups, eps=module.eps)

    _add(calls, images, sums, xhat, channels_last)


@register(nn.BatchNorm1d, nn.BatchNorm2d)
def batch_norm(module: nn.Module, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """In eval mode, where xhat = (a - running mean) / sqrt(running variance + eps) is affine in a.

        sum_t g xhat = (sum_t g a - mean * sum_t g) / sqrt(variance + eps)

    One pass over the activations less than subtracting first. What cancels where a channel's mean is far above its
    deviation has cancelled in the forward pass as well: a itself is rounded relative to its mean.
    """
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    assert module.running_mean is not None
    assert module.running_var is not None
    dtype = next(iter(sums.values())).dtype
    g = joined([channels_last(call.g) for call in calls], images)
    shift = g.sum(1, dtype=dtype)
    if "weight" in sums:
        products = joined([channels_last(call.g * call.a) for call in calls], images).sum(1, dtype=dtype)
        scale = (module.running_var + module.eps).rsqrt()
        sums["weight"] += (products - module.running_mean * shift).mul_(scale).square_().sum(0)
    if "bias" in sums:
        sums["bias"] += shift.square_().sum(0)


def attach_before_activation(module: nn.Module, record: Record) -> list[RemovableHandle]:
    """Timm's BatchNormAct2d is norm, then `drop` (an identity), then `act`: the gradient is wanted where `drop` begins."""
    inputs: list[Tensor] = []

    def remember(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs[:] = [args[0]]

    def report(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        record(inputs.pop(), args[0], None)

    assert isinstance(module.drop, nn.Module)
    return [module.register_forward_pre_hook(remember), module.drop.register_forward_pre_hook(report)]


register("timm.layers:BatchNormAct2d", attach=attach_before_activation)(batch_norm)


def _add(
    calls: Sequence[Call], images: int, sums: Sums, xhat: Callable[[Tensor], Tensor], features_last: Callable[[Tensor], Tensor]
) -> None:
    if "weight" in sums:
        products = joined([features_last(xhat(call.a).mul_(call.g)) for call in calls], images)
        acc = sums["weight"]
        add_vector_squares(acc.view(-1), products)
    if "bias" in sums:
        add_vector_squares(sums["bias"].view(-1), joined([features_last(call.g) for call in calls], images))
