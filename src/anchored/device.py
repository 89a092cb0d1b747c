"""Which device a step computes on, and how many threads it may use."""

from typing import TypeVar

import torch
from torch import nn

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


def describe(device: torch.device) -> str:
    """The device in words, for a record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
