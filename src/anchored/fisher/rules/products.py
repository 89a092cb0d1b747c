"""The one expensive step: squares of sums of outer products.

    acc += sum_n (sum_t g_nt a_nt^T)^2        a (B, T, d_in), g (B, T, d_out), acc (d_out, d_in)

The square does not commute with the sum over t, so each image's product has to exist, at least for a moment. For T = 1 it
factorises into (g^2)^T (a^2), one product for the whole batch. Everywhere else the form is chosen by shapes and device alone,
never by timing: the same measurement gives the same bits.

Time over that of the ordinary weight gradient, one core with 2 MiB of second-level cache, batch 8 (two numbers are two runs):

    T      d_in x d_out   one buffer   row tiles   bmm over the batch
    197     192 x  768    1.11         1.19        1.25
    197     768 x 3072    1.14-1.26    1.15-1.35   1.92
    690     768 x  768    1.01         1.12
     49     512 x 2048    1.62         1.34
     49    4608 x  512    1.78         1.39
     50      64 x  192    2.11                     1.59                (batch 64)
"""

import torch
from torch import Tensor

from anchored.fisher.kernels import outer_squares_kernel

# Entries of `acc` from which one image's product through one reused buffer is fastest; below, a call costs more than the memory,
# and several images share one.
_BUFFER_FROM = 24_000
_CHUNK = 2**18
# With few tokens an entry's square costs as much as its product: rows of `acc` that stay in the second-level cache (1 MiB in fp32,
# and as much for the buffer) then see all images before the next rows do. With more tokens, narrow products cost more than
# that saves.
_TILE_UP_TO_TOKENS = 64
_TILE_FROM = 2**19
_TILE = 2**18
# Entries of the products that a GPU holds at once: 256 MiB in fp32.
_GPU_CHUNK = 2**26


def add_outer_squares(acc: Tensor, a: Tensor, g: Tensor) -> None:
    """Adds the formula above to `acc`, in the dtype of `acc`."""
    if a.shape[1] == 1:
        acc.addmm_(g[:, 0].to(acc.dtype).square().t(), a[:, 0].to(acc.dtype).square())
    elif acc.is_cuda:
        kernel = outer_squares_kernel(acc)
        if kernel is not None:
            kernel(acc, a, g)
        else:
            _batched_with_norm(acc, a, g)
    else:
        _on_cpu(acc, a.to(acc.dtype), g.to(acc.dtype))


def _on_cpu(acc: Tensor, a: Tensor, g: Tensor) -> None:
    if acc.numel() < _BUFFER_FROM:
        step = max(1, _CHUNK // acc.numel())
        for a_part, g_part in zip(a.split(step), g.transpose(1, 2).split(step), strict=True):
            acc += torch.bmm(g_part, a_part).square_().sum(0)
    elif a.shape[1] <= _TILE_UP_TO_TOKENS and acc.numel() >= _TILE_FROM:
        rows = max(1, _TILE // acc.shape[1])
        for acc_part, g_part in zip(acc.split(rows), g.split(rows, dim=2), strict=True):
            _one_by_one(acc_part, a, g_part)
    else:
        _one_by_one(acc, a, g)


def _one_by_one(acc: Tensor, a: Tensor, g: Tensor) -> None:
    """One image's product at a time, in a buffer that stays in the cache."""
    buffer = acc.new_empty(acc.shape)
    for a_n, g_n in zip(a.unbind(), g.transpose(1, 2).unbind(), strict=True):
        torch.mm(g_n, a_n, out=buffer)
        acc.addcmul_(buffer, buffer)


def _batched_with_norm(acc: Tensor, a: Tensor, g: Tensor) -> None:
    """Products written once and read once: 8 bytes an entry in fp32 where squaring them in place takes 16."""
    step = max(1, _GPU_CHUNK // acc.numel())
    for a_part, g_part in zip(a.split(step), g.transpose(1, 2).split(step), strict=True):
        acc += torch.linalg.vector_norm(_products(g_part, a_part, acc.dtype), dim=0).square_()


def _products(g: Tensor, a: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, d_out, T) times (B, T, d_in) in `dtype`; half-precision factors stay so where the product can be wider (CUDA)."""
    if a.is_cuda and dtype == torch.float32 and a.dtype == g.dtype and a.dtype in (torch.bfloat16, torch.float16):
        return torch.bmm(g, a, out_dtype=dtype)
    return torch.bmm(g.to(dtype), a.to(dtype))


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
