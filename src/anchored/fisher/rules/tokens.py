"""The tokens of a ViT that belong to no layer: class token, register tokens and position embedding.

    tokens = [cls, reg, patches] + pos        or [cls, reg, patches + pos] where the prefix has no position

Their gradient is that of the tokens after the sum, summed over the views of an image. Where the position embedding is
resized to another grid, it is carried back through the transpose of the resize, which is linear and acts on each channel alone: one
call serves all images, as channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from anchored.fisher.rules.registry import Call, Record, Sums, register


def attach_tokens(module: Any, record: Record) -> list[RemovableHandle]:
    """Timm's `_pos_embed` ends in `pos_drop`; with a dynamic image size, the patch embedding tells the grid."""
    grids: list[tuple[int, int]] = []

    def remember(_: nn.Module, __: object, patches: Tensor) -> None:
        grids[:] = [(patches.shape[1], patches.shape[2])] if module.dynamic_img_size else [module.patch_embed.grid_size]

    def report(_: nn.Module, inputs: tuple[Tensor, ...], tokens: Tensor) -> None:
        record(tokens, tokens, grids.pop())

    return [module.patch_embed.register_forward_hook(remember), module.pos_drop.register_forward_hook(report)]


def refuses_odd_tokens(module: Any) -> str:
    """Without a position embedding timm returns before `pos_drop`."""
    return "it has no absolute position embedding" if module.pos_embed is None else ""


@register(
    "timm.models.vision_transformer:VisionTransformer",
    parameters=("cls_token", "reg_token", "pos_embed"),
    attach=attach_tokens,
    refuses=refuses_odd_tokens,
)
def vision_transformer(module: Any, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """Parameters have a leading 1, as the sums have."""
    prefix: int = module.num_prefix_tokens
    prefix_g = sum(_per_image(call.g[:, :prefix], images, sums) for call in calls)
    registers = 1 if module.cls_token is not None else 0
    if "cls_token" in sums:
        _add(sums["cls_token"], prefix_g[:, :registers])
    if "reg_token" in sums:
        _add(sums["reg_token"], prefix_g[:, registers:])
    if "pos_embed" in sums:
        _add(sums["pos_embed"], sum(_position_gradient(module, call, images, sums) for call in calls))


def _position_gradient(module: Any, call: Call, images: int, sums: Sums) -> Any:
    """(B, N, d) at the stored grid of N positions."""
    prefix = 0 if module.no_embed_class else module.num_prefix_tokens
    g = _per_image(call.g[:, module.num_prefix_tokens - prefix :], images, sums)
    if tuple(call.note) == tuple(module.patch_embed.grid_size):
        return g
    from timm.layers import resample_abs_pos_embed

    stored = module.pos_embed.shape[1]
    as_channels = g.permute(1, 0, 2).flatten(1)[None]  # (1, N', B * d)
    with torch.enable_grad():
        origin = as_channels.new_zeros(1, stored, as_channels.shape[-1], requires_grad=True)
        resized = resample_abs_pos_embed(
            origin, new_size=list(call.note), old_size=list(module.patch_embed.grid_size), num_prefix_tokens=prefix
        )
        (back,) = torch.autograd.grad(resized, origin, as_channels)
    return back[0].unflatten(1, (images, -1)).permute(1, 0, 2)


def _per_image(g: Tensor, images: int, sums: Sums) -> Any:
    dtype = next(iter(sums.values())).dtype
    return g.unflatten(0, (images, -1)).sum(1, dtype=dtype)


def _add(acc: Tensor, per_image: Any) -> None:
    acc += per_image.square().sum(0, keepdim=True)
