"""The fused kernel against bmm and a reduction on this machine's GPU, layer by layer.

    python benchmarks/kernel.py [--images 32] [--repeats 20]

For the layers of ViT-B/16 at 197 tokens (one view of 224 pixels) and 690 (two of 224 and eight of 96), in bf16 and in fp32 (true
fp32 products in both): milliseconds of both, their ratio, how far each is from float64, and the two limits, which are the
arithmetic at the rate of a large product on this GPU and the memory traffic of bmm at the rate of a large copy.

Ends with the line for MEASURED_FASTER in src/anchored/fisher/kernels/__init__.py if the kernel took less time over all layers in
both types. Nothing is switched on by this script.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from anchored.fisher.rules.products import _batched_with_norm

# d_in, d_out of the four products of a ViT-B/16 block.
LAYERS = {"qkv": (768, 2304), "proj": (768, 768), "fc1": (768, 3072), "fc2": (3072, 768)}
TOKENS = (197, 690)


def main() -> None:
    """Prints a line a layer, or why it cannot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA device here, so the fused kernel was not measured; it stays off.")
        return
    try:
        from anchored.fisher.kernels.outer_squares import add_outer_squares
    except ImportError as error:
        print(f'The fused kernel needs triton ({error}): pip install "anchored[gpu]".')
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda", 0)
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {arguments.images} images")
    total: dict[torch.dtype, list[float]] = {}
    for dtype in (torch.bfloat16, torch.float32):
        peak = _peak(dtype, device, arguments.repeats)
        bandwidth = _bandwidth(device, arguments.repeats)
        print(f"{dtype}: a large product reaches {peak / 1e12:.0f} TFLOP/s, a large copy {bandwidth / 1e9:.0f} GB/s")
        total[dtype] = [0.0, 0.0]
        for tokens in TOKENS:
            for name, (d_in, d_out) in LAYERS.items():
                a = torch.randn(arguments.images, tokens, d_in, device=device).to(dtype)
                g = torch.randn(arguments.images, tokens, d_out, device=device).to(dtype)
                kernel = _milliseconds(lambda acc: add_outer_squares(acc, a, g), a, g, arguments.repeats)  # noqa: B023
                bmm = _milliseconds(lambda acc: _batched_with_norm(acc, a, g), a, g, arguments.repeats)  # noqa: B023
                total[dtype][0] += kernel
                total[dtype][1] += bmm
                arithmetic = 2 * a.numel() * d_out / peak * 1e3
                traffic = 8 * arguments.images * d_in * d_out / bandwidth * 1e3
                print(
                    f"  {tokens} tokens, {name:4}: kernel {kernel:7.3f} ms, bmm {bmm:7.3f} ms, ratio {kernel / bmm:.2f}; "
                    f"arithmetic {arithmetic:.3f} ms, bmm's traffic {traffic:.3f} ms; "
                    f"errors {_error(add_outer_squares, a, g):.0e} and {_error(_batched_with_norm, a, g):.0e}"
                )
    ratios = {dtype: kernel / bmm for dtype, (kernel, bmm) in total.items()}
    print("kernel over bmm, all layers: " + ", ".join(f"{dtype} {ratio:.2f}" for dtype, ratio in ratios.items()))
    if max(ratios.values()) < 1:
        print(f'    "{torch.cuda.get_device_name(device)}": {max(ratios.values()):.2f},')
    else:
        print("the kernel is not faster here in both types: no entry")


def _milliseconds(work: Callable[[Tensor], None], a: Tensor, g: Tensor, repeats: int) -> float:
    acc = torch.zeros(g.shape[2], a.shape[2], device=a.device)
    return _median(lambda: work(acc), repeats)


def _median(work: Callable[[], object], repeats: int) -> float:
    """Milliseconds; the first three, which compile and allocate, are left out."""
    return statistics.median([_timed(work) for _ in range(repeats + 3)][3:])


def _timed(work: Callable[[], object]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def _error(work: Callable[[Tensor, Tensor, Tensor], None], a: Tensor, g: Tensor) -> float:
    """Largest difference to float64 over the largest entry, on two images."""
    a, g = a[:2], g[:2]
    acc = torch.zeros(g.shape[2], a.shape[2], device=a.device)
    work(acc, a, g)
    exact = torch.bmm(g.double().transpose(1, 2), a.double()).square().sum(0)
    return float((acc - exact).abs().max() / exact.max())


def _peak(dtype: torch.dtype, device: torch.device, repeats: int) -> float:
    """FLOP/s of an 8192 x 8192 product."""
    left, right = (torch.randn(8192, 8192, device=device).to(dtype) for _ in range(2))
    return 2 * 8192**3 / (_median(lambda: left @ right, repeats) / 1e3)


def _bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes/s of a copy of 1 GiB, read and written."""
    source = torch.empty(2**28, device=device)
    target = torch.empty_like(source)
    return 2 * 2**30 / (_median(lambda: target.copy_(source), repeats) / 1e3)


if __name__ == "__main__":
    main()
