"""Squares of sums of outer products, in every form, against float64 sums written out."""

import pytest
import torch
from fisher_cases import random
from hypothesis import given, settings
from hypothesis import strategies as st

from anchored.fisher.rules import products
from anchored.fisher.rules.products import add_outer_squares, add_vector_squares


def written_out(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(g.shape[2], a.shape[2], dtype=torch.float64)
    for n in range(len(a)):
        product = torch.zeros_like(total)
        for t in range(a.shape[1]):
            product += torch.outer(g[n, t].double(), a[n, t].double())
        total += product**2
    return total


# Every bound on one side or the other: (buffer from, chunk, tiles up to tokens, tiles from, tile).
BOUNDS = {
    "as measured": {},
    "one buffer": {"_BUFFER_FROM": 1, "_TILE_FROM": 10**9},
    "row tiles": {"_BUFFER_FROM": 1, "_TILE_UP_TO_TOKENS": 10**9, "_TILE_FROM": 1, "_TILE": 9},
    "whole batch": {"_BUFFER_FROM": 10**9, "_CHUNK": 10**9},
    "image by image": {"_BUFFER_FROM": 10**9, "_CHUNK": 1},
}


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 4), tokens=st.integers(1, 4), into=st.integers(1, 7), out=st.integers(1, 7), channels_second=st.booleans()
)
def test_every_form_is_the_formula(bounds: dict, images: int, tokens: int, into: int, out: int, channels_second: bool):
    a, g = random(images, tokens, into), random(images, tokens, out, seed=2)
    if channels_second:
        a, g = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (a, g))
    acc = random(out, into, seed=3)
    expected = acc + written_out(a, g)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bounds.items():
            patch.setattr(products, name, value)
        add_outer_squares(acc, a, g)
    torch.testing.assert_close(acc, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("tokens", "into", "out"), [(197, 192, 192), (50, 64, 192), (49, 1024, 520), (5, 768, 700)])
def test_real_layers_are_exact_to_fp32(tokens: int, into: int, out: int):
    """Sizes at which the measured bounds take different forms: one buffer, a shared buffer, row tiles with a ragged last one."""
    a, g = random(3, tokens, into), random(3, tokens, out, seed=2)
    acc = torch.zeros(out, into)
    add_outer_squares(acc, a.float(), g.float())
    expected = torch.bmm(g.transpose(1, 2), a).square().sum(0)
    assert float((acc - expected).abs().max() / expected.max()) < 1e-5


@settings(max_examples=25, deadline=None, derandomize=True)
@given(images=st.integers(1, 5), tokens=st.integers(1, 4), chunk=st.sampled_from([1, 20, 10**9]))
def test_norms_of_products_are_the_formula(images: int, tokens: int, chunk: int):
    """What a GPU does without the kernel; the arithmetic can be shown anywhere."""
    a, g = random(images, tokens, 5), random(images, tokens, 3, seed=2)
    acc = random(3, 5, seed=3)
    expected = acc + written_out(a, g)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_GPU_CHUNK", chunk)
        products._batched_with_norm(acc, a, g)
    torch.testing.assert_close(acc, expected, rtol=1e-12, atol=1e-12)


def test_half_precision_factors_are_squared_in_fp32():
    """bf16 sums stop growing after some 256 equal terms."""
    a, g = torch.ones(1000, 2, 3, dtype=torch.bfloat16), torch.full((1000, 2, 4), 0.5, dtype=torch.bfloat16)
    for tokens in (1, 2):
        acc = torch.zeros(4, 3)
        add_outer_squares(acc, a[:, :tokens], g[:, :tokens])
        assert torch.equal(acc, torch.full((4, 3), 1000 * (0.5 * tokens) ** 2))


def test_same_bits_each_time():
    for shape in ((8, 49, 1024, 600), (40, 50, 64, 64), (4, 197, 192, 192)):
        images, tokens, into, out = shape
        a, g = random(images, tokens, into).float(), random(images, tokens, out, seed=2).float()
        first, second = torch.zeros(out, into), torch.zeros(out, into)
        add_outer_squares(first, a, g)
        add_outer_squares(second, a, g)
        assert torch.equal(first, second)


def test_vectors_are_summed_over_tokens_before_the_square():
    values = random(3, 4, 5)
    acc = torch.zeros(5, dtype=torch.float64)
    add_vector_squares(acc, values)
    torch.testing.assert_close(acc, sum(values[n].sum(0) ** 2 for n in range(3)))
