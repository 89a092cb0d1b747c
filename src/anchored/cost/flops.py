"""Operations of a network for one image, counted by torch while it runs on the meta device: shapes only, nothing is computed.

A multiplication with its addition counts as two operations. Matrix products and convolutions are kept apart, since devices reach
different shares of their peak in them; everything else (norms, activations) is memory traffic and part of the rates.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anchored.backbones.build import build
from anchored.backbones.features import feature_width
from anchored.backbones.split import split
from anchored.errors import ConfigError
from anchored.finetune.strategies import freeze_stages

Architecture = Mapping[str, Any]


@dataclass(frozen=True)
class Flops:
    """Operations by kind."""

    matmul: float = 0.0
    convolution: float = 0.0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.matmul + other.matmul, self.convolution + other.convolution)

    def __mul__(self, factor: float) -> "Flops":
        return Flops(self.matmul * factor, self.convolution * factor)


@dataclass(frozen=True)
class Size:
    """Numbers of a network: parameters, values of its state (parameters and buffers), width of its features."""

    parameters: int
    state: int
    width: int


def forward(architecture: Architecture, side: int) -> Flops:
    """Operations of a forward pass of one image of `side` pixels.

    Raises:
        ConfigError: timm has no model of that name.
    """
    return _count(architecture, side, False, None)


def training(architecture: Architecture, side: int, *, frozen: int | None = None) -> Flops:
    """Operations of a forward and backward pass of one image; with `frozen`, stem and that many stages have no gradient.

    Raises:
        ConfigError: timm has no model of that name, or `frozen` leaves nothing to train.
    """
    return _count(architecture, side, True, frozen)


def stem(architecture: Architecture, side: int, stages: int) -> Flops:
    """Operations of a forward pass of one image through the stem and the first `stages` stages.

    Raises:
        ConfigError: timm has no model of that name, or it cannot be cut.
    """
    return _stem(json.dumps(architecture), side, stages)


def size(architecture: Architecture) -> Size:
    """The numbers of a network."""
    return _sized(json.dumps(architecture))


def head_forward(width: int, dino: Mapping[str, Any]) -> Flops:
    """Operations of a DINO head for the features of one view."""
    return Flops(matmul=2.0 * head_values(width, dino))


def head_values(width: int, dino: Mapping[str, Any]) -> int:
    """Weights of a DINO head's matrices; biases and norms are left out."""
    hidden, layers = dino["hidden"], dino["layers"]
    sides = [width, *[hidden] * (layers - 1), dino["bottleneck"], dino["prototypes"]]
    return sum(before * after for before, after in pairwise(sides))


def _count(architecture: Architecture, side: int, backward: bool, frozen: int | None) -> Flops:
    return _counted(json.dumps(architecture), side, backward, frozen)


@cache
def _counted(architecture: str, side: int, backward: bool, frozen: int | None) -> Flops:
    model = _built(json.loads(architecture), side)
    if frozen is not None:
        freeze_stages(model, frozen, cell=f"of {architecture}")
    return _run(model, side, backward=backward)


@cache
def _stem(architecture: str, side: int, stages: int) -> Flops:
    return _run(split(_built(json.loads(architecture), side), stages)[0], side, backward=False)


def _run(network: Callable[[Tensor], Tensor], side: int, *, backward: bool) -> Flops:
    images = torch.empty(1, 3, side, side, device="meta")
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        made = network(images)
        if backward:
            made.sum().backward()
    found = counter.get_flop_counts()["Global"]
    convolution = sum(count for operation, count in found.items() if "convolution" in str(operation))
    return Flops(float(sum(found.values()) - convolution), float(convolution))


@cache
def _sized(architecture: str) -> Size:
    model = _built(json.loads(architecture), None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Size(parameters, sum(value.numel() for value in model.state_dict().values()), feature_width(model))


def _built(architecture: Architecture, side: int | None) -> nn.Module:
    """The network on the meta device, in evaluation mode, for images of `side` pixels."""
    if architecture["family"] == "timm" and side is not None:
        try:
            return _on_meta({**architecture, "image": side})
        except ConfigError as error:
            if "not built for an image size" not in error.message:  # networks that take any size
                raise
    return _on_meta(architecture)


def _on_meta(architecture: Architecture) -> nn.Module:
    try:
        with torch.device("meta"):
            return build(architecture).eval()
    except (RuntimeError, NotImplementedError):  # some constructors read values, which meta tensors have not
        return build(architecture).to("meta").eval()
