"""Functions of torch that hide several steps, written out in steps that have rules.

multi-head attention = three linear layers, scaled dot-product attention, one linear layer
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    **rest: Any,
) -> tuple[Tensor, Tensor | None] | None:
    """`F.multi_head_attention_forward` of (tokens, rows, features), images first inside.

    None with masks, separate widths and additional keys.
    """
    unusual = (bias_k, bias_v, key_padding_mask, attn_mask)
    if in_proj_weight is None or use_separate_proj_weight or add_zero_attn or any(part is not None for part in unusual):
        return None
    rows = [tensor.transpose(0, 1) for tensor in (query, key, value)]
    weights = in_proj_weight.chunk(3)
    biases = in_proj_bias.chunk(3) if in_proj_bias is not None else (None, None, None)
    if query is key and key is value:
        projected = F.linear(rows[0], in_proj_weight, in_proj_bias).chunk(3, dim=-1)
    else:
        projected = tuple(F.linear(x, w, b) for x, w, b in zip(rows, weights, biases, strict=True))
    q, k, v = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in projected)
    weight = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    mixed = (weight @ v).transpose(1, 2).flatten(2)
    out = F.linear(mixed, out_proj_weight, out_proj_bias).transpose(0, 1)
    if not need_weights:
        return out, None
    return out, weight.mean(1) if rest.get("average_attn_weights", True) else weight


REWRITES: dict[Any, Callable[..., Any]] = {F.multi_head_attention_forward: attention}
