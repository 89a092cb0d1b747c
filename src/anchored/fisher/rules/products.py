"""The one expensive step: squares of sums of outer products.

    acc += sum_n (sum_t g_nt a_nt^T)^2        a (B, T, d_in), g (B, T, d_out), acc (d_out, d_in)

The square does not commute with the sum over t, so each image's product has to exist, at least for a moment. For T = 1 it
factorises into (g^2)^T (a^2), one product for the whole batch.
"""

import torch
from torch import Tensor

# Measured on one core (2 MiB of second-level cache): above this size one image's product through one reused buffer is faster,
# below it the calls cost more than the memory.
_BUFFER_FROM = 24_000
_CHUNK = 2**18


def add_outer_squares(acc: Tensor, a: Tensor, g: Tensor) -> None:
    """Adds the formula above to `acc`, in the dtype of `acc`."""
    a, g = a.to(acc.dtype), g.to(acc.dtype)
    if a.shape[1] == 1:
        acc.addmm_(g[:, 0].square().t(), a[:, 0].square())
    elif acc.numel() >= _BUFFER_FROM and not acc.is_cuda:
        buffer = torch.empty_like(acc)
        for a_n, g_n in zip(a.unbind(), g.transpose(1, 2).unbind(), strict=True):
            torch.mm(g_n, a_n, out=buffer)
            acc.addcmul_(buffer, buffer)
    else:
        step = max(1, _CHUNK // acc.numel()) if not acc.is_cuda else len(a)
        for a_part, g_part in zip(a.split(step), g.transpose(1, 2).split(step), strict=True):
            acc += torch.bmm(g_part, a_part).square_().sum(0)


def add_vector_squares(acc: Tensor, per_token: Tensor) -> None:
    """Acc += sum_n (sum_t v_nt)^2 for v of shape (B, T, d)."""
    acc += per_token.sum(1, dtype=acc.dtype).square_().sum(0)


def reached_tokens(a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Without the tokens that no gradient reaches in any image: in the last block of a ViT read out at its class token, all others.

    (B, T, d_in), (B, T, d_out) to (B, T', d_in), (B, T', d_out)
    """
    # The class token comes first, so a gradient at the last token of the first image settles the common case at once.
    if g.shape[1] == 1 or bool(g[0, -1].any()):
        return a, g
    reached = g.abs().amax(-1).amax(0) > 0
    if bool(reached.all()):
        return a, g
    index = reached.nonzero().squeeze(1) if bool(reached.any()) else torch.zeros(1, dtype=torch.long, device=g.device)
    return a.index_select(1, index), g.index_select(1, index)
