"""Runs the Triton kernel in its interpreter and prints, as JSON, how far it is from the formula. Not a test module: triton reads
TRITON_INTERPRET when it is imported, so this needs a process of its own."""

import json

import torch
from triton import knobs

from anchored.fisher.kernels.outer_squares import BLOCK_IN, BLOCK_OUT, BLOCK_TOKENS, add_outer_squares

SMALL = (16, 16, 16)
CASES = {
    "one tile": ((2, 16, 16), 16, {}),
    "ragged in every dimension": ((3, 21, 19), 37, {}),
    "fewer tokens than a step": ((2, 5, 8), 8, {}),
    "split in parts that do not divide the images": ((5, 9, 17), 20, {"split": 2}),
    "as many parts as images": ((3, 9, 17), 20, {"split": 3}),
    "more parts than images": ((2, 9, 17), 20, {"split": 9}),
    "parts of which the last is empty": ((5, 9, 8), 8, {"split": 4}),
    "the tiles of a GPU": ((1, 40, 130), 140, {"blocks": (BLOCK_OUT, BLOCK_IN, BLOCK_TOKENS)}),
    "tf32": ((2, 21, 19), 37, {"precision": "tf32"}),
    # The interpreter multiplies the bit patterns of bf16, so half precision is shown with the other half.
    "half precision": ((3, 21, 19), 37, {"dtype": torch.float16}),
    "mixed": ((3, 21, 19), 37, {"dtype": torch.bfloat16, "g_dtype": torch.float32}),
    "channels second": ((3, 21, 19), 37, {"transposed": True}),
}


def errors() -> dict[str, float]:
    """Largest difference over the largest entry, for each case; `acc` is not zero at the start."""
    found = {}
    for name, ((images, tokens, d_in), d_out, options) in CASES.items():
        generator = torch.Generator().manual_seed(0)
        dtype = options.pop("dtype", torch.float32)
        a = torch.randn(images, tokens, d_in, generator=generator).to(dtype)
        g = torch.randn(images, tokens, d_out, generator=generator).to(options.pop("g_dtype", dtype))
        if options.pop("transposed", False):
            a, g = (tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (a, g))
        acc = torch.rand(d_out, d_in, generator=generator)
        expected = acc.double() + torch.einsum("nto,nti->noi", g.double(), a.double()).square().sum(0)
        again = acc.clone()
        add_outer_squares(acc, a, g, **{"blocks": SMALL, **options})
        found[name] = float((acc.double() - expected).abs().max() / expected.max())
        add_outer_squares(again, a, g, **{"blocks": SMALL, **options})
        assert torch.equal(acc, again), f"{name}: two runs gave different bits"
    return found


if __name__ == "__main__":
    assert knobs.runtime.interpret, "set TRITON_INTERPRET=1"
    print(json.dumps(errors()))
