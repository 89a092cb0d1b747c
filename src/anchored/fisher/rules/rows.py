"""From rows to images: (R, ..., d) of each call to one (B, T, d) over all calls."""

from collections.abc import Sequence

import torch
from torch import Tensor


def joined(parts: Sequence[Tensor], images: int) -> Tensor:
    """Features last: reshapes each part to (B, T_call, d) and joins them on T."""
    tokens = [part.reshape(images, -1, part.shape[-1]) for part in parts]
    return tokens[0] if len(tokens) == 1 else torch.cat(tokens, dim=1)


def channels_last(tensor: Tensor) -> Tensor:
    """(R, C, ...) to (R, ..., C), without a copy."""
    return tensor.movedim(1, -1)
