"""Which form the products take on a GPU: `bmm` and a reduction, or one fused Triton kernel.

    ANCHORED_FISHER_KERNEL=auto      the kernel on devices where it was measured to be faster, bmm elsewhere (the default)
    ANCHORED_FISHER_KERNEL=bmm       never the kernel
    ANCHORED_FISHER_KERNEL=triton    the kernel wherever it can run

A CPU never uses it. `python benchmarks/kernel.py` measures both on a GPU and prints the line for `MEASURED_FASTER`.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from anchored.errors import ConfigError, EnvironmentFailure

VARIABLE = "ANCHORED_FISHER_KERNEL"
CHOICES = ("auto", "bmm", "triton")

# Names as torch.cuda.get_device_name() gives them, each with the measured time of the kernel over that of bmm. A device without a
# measurement is not listed.
MEASURED_FASTER: dict[str, float] = {}


def outer_squares_kernel(acc: Tensor) -> Callable[[Tensor, Tensor, Tensor], None] | None:
    """The kernel `(acc, a, g) -> None` if it is to add to `acc`, else None.

    Raises:
        ConfigError: the variable has a value that is no choice.
        EnvironmentFailure: the kernel is demanded and triton is not installed.
    """
    choice = os.environ.get(VARIABLE) or "auto"
    if choice not in CHOICES:
        raise ConfigError(f"{VARIABLE} is '{choice}'.", f"choose one of {', '.join(CHOICES)}, or unset it.")
    # Squares in float64 are for tests; the kernel's registers are fp32.
    if choice == "bmm" or not acc.is_cuda or acc.dtype != torch.float32:
        return None
    if choice == "auto" and torch.cuda.get_device_name(acc.device) not in MEASURED_FASTER:
        return None
    if importlib.util.find_spec("triton") is None:
        if choice == "auto":
            return None
        raise EnvironmentFailure(
            f"{VARIABLE} is 'triton', but triton is not installed.", 'run `pip install "anchored[gpu]"`, or unset the variable.'
        )
    from anchored.fisher.kernels.outer_squares import add_outer_squares

    # As bmm would: TF32 where the measurement allows it (`device.arithmetic`).
    return partial(add_outer_squares, precision="ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32")
