"""Which device a step computes on, and how many threads it may use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from anchored.errors import ConfigError

Network = TypeVar("Network", bound=nn.Module)


def choose_device() -> torch.device:
    """The first visible GPU, else the CPU. Schedulers choose the GPU by `CUDA_VISIBLE_DEVICES`."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def place(module: Network, device: torch.device) -> Network:
    """Moves `module` to `device`, filters in channels-last order: convolutions are faster so on CPU and GPU."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def limit_threads(threads: int) -> None:
    """Makes torch use `threads` CPU threads: the number is part of the plan, since other numbers give other bits."""
    torch.set_num_threads(threads)


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Products of fp32 matrices and convolutions in TF32 inside where `precision` is "tf32", else in fp32, which is not torch's
    default for convolutions on a GPU.

    Raises:
        ConfigError: TF32 on a device that has none.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError("precision tf32 is an arithmetic of NVIDIA GPUs, and this machine has none.", "use fp32 or bf16.")
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def describe(device: torch.device) -> str:
    """The device in words, for a record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
