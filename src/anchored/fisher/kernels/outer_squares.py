"""The fused kernel: products and their squares never leave the registers.

    acc[o, i] += sum_n (sum_t g[n, t, o] a[n, t, i])^2

A program owns one tile of `acc` and one part of the images. It holds two fp32 tiles, the product of the image at hand and the
running sum of squares, and goes through the image's tokens, then through the images. Only the parts' sums are written, and added in
a fixed order: there is no atomic addition, so the result has the same bits each time. What is read is a and g, once for each
tile of the other side; bmm and a reduction move 8 bytes for every entry of every image's product on top.

The arithmetic is that of the ordinary weight gradient; the squares add 1/T of it on the other units.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# 128 x 128 x 2 tiles in fp32 are 128 registers a thread at 8 warps.
BLOCK_OUT, BLOCK_IN, BLOCK_TOKENS, WARPS = 128, 128, 32, 8
# Programs that keep a large GPU busy (132 multiprocessors, two waves): small layers split their images to get there.
_PROGRAMS = 264


def add_outer_squares(
    acc: Tensor,
    a: Tensor,
    g: Tensor,
    *,
    split: int | None = None,
    precision: str = "ieee",
    blocks: tuple[int, int, int] = (BLOCK_OUT, BLOCK_IN, BLOCK_TOKENS),
) -> None:
    """Adds the formula above to `acc`.

    Args:
        acc: (d_out, d_in), fp32.
        a: (B, T, d_in), any strides; fp32, bf16 or fp16, as `g` is.
        g: (B, T, d_out).
        split: in how many parts the images are summed; by default as many as the GPU needs. Other splits give other bits.
        precision: of the products of fp32 factors, "ieee" or "tf32". Sums are fp32 in any case.
        blocks: rows and columns of a tile of `acc`, and tokens a step; powers of two, 16 or more.
    """
    images, tokens, d_in = a.shape
    d_out = g.shape[2]
    if a.dtype != g.dtype:  # autocast: the input may be fp32 where the gradient is not
        a, g = a.float(), g.float()
    block_out, block_in, block_tokens = blocks
    tiles = triton.cdiv(d_out, block_out), triton.cdiv(d_in, block_in)
    parts = max(1, min(images, split or triton.cdiv(_PROGRAMS, tiles[0] * tiles[1])))
    partial = torch.empty(parts, d_out, d_in, dtype=torch.float32, device=acc.device)
    _squares[(*tiles, parts)](
        g, a, partial, images, tokens, d_out, d_in, triton.cdiv(images, parts), *g.stride(), *a.stride(),
        BLOCK_OUT=block_out, BLOCK_IN=block_in, BLOCK_TOKENS=block_tokens, PRECISION=precision, num_warps=WARPS,
    )
    for part in partial:
        acc += part


@triton.jit
def _squares(  # type: ignore[no-untyped-def]  # pointers and numbers, typed by triton
    g, a, partial, images, tokens, d_out, d_in, images_a_part,
    g_image, g_token, g_feature, a_image, a_token, a_feature,
    BLOCK_OUT: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_TOKENS: tl.constexpr, PRECISION: tl.constexpr,  # noqa: N803
):
    out = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    into = tl.program_id(1) * BLOCK_IN + tl.arange(0, BLOCK_IN)
    part = tl.program_id(2)
    inside_out, inside_in = out < d_out, into < d_in
    squares = tl.zeros((BLOCK_OUT, BLOCK_IN), dtype=tl.float32)
    first = part * images_a_part
    for n in range(first, min(first + images_a_part, images)):
        product = tl.zeros((BLOCK_OUT, BLOCK_IN), dtype=tl.float32)
        # 64 bits: the offset of an image passes 2^31 in large batches.
        g_n, a_n = g + tl.cast(n, tl.int64) * g_image, a + tl.cast(n, tl.int64) * a_image
        for start in range(0, tokens, BLOCK_TOKENS):
            t = start + tl.arange(0, BLOCK_TOKENS)
            inside = t < tokens
            g_tile = tl.load(
                g_n + out[:, None] * g_feature + t[None, :] * g_token, mask=inside_out[:, None] & inside[None, :], other=0.0
            )
            a_tile = tl.load(
                a_n + t[:, None] * a_token + into[None, :] * a_feature, mask=inside[:, None] & inside_in[None, :], other=0.0
            )
            product = tl.dot(g_tile, a_tile, product, input_precision=PRECISION)
        squares += product * product
    where = tl.cast(part, tl.int64) * d_out * d_in + out[:, None] * d_in + into[None, :]
    tl.store(partial + where, squares, mask=inside_out[:, None] & inside_in[None, :])
