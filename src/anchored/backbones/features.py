"""Frozen features of images, in batches."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def to_input(images: NDArray[np.uint8], entry: Mapping[str, Any], device: torch.device) -> Tensor:
    """uint8 images (B, H, W, 3) as the backbone expects them: float (B, 3, H, W), channels last, normalised.

    Args:
        images: pixels.
        entry: the backbone's entry in the plan; its `mean` and `std` are used.
        device: where to.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device).float().div_(255)
    # `normalise` in place and along whole images: new memory and a stride of 3 would take four times as long on a CPU.
    mean, std = (torch.tensor(entry[key], device=device).repeat(images.shape[1] * images.shape[2]) for key in ("mean", "std"))
    pixels.flatten(1).sub_(mean).div_(std)
    return pixels.permute(0, 3, 1, 2)


def normalise(pixels: Tensor, entry: Mapping[str, Any]) -> Tensor:
    """Pixels (..., 3, H, W) in [0, 1], minus the entry's mean, divided by its std."""
    mean = torch.tensor(entry["mean"], device=pixels.device).view(3, 1, 1)
    std = torch.tensor(entry["std"], device=pixels.device).view(3, 1, 1)
    return (pixels - mean) / std


def feature_width(model: nn.Module) -> int:
    """Dimension D of a backbone's features."""
    return int(model.num_features)  # type: ignore[arg-type]


@torch.inference_mode()
def features(model: nn.Module, inputs: Tensor, *, batch: int = 256) -> NDArray[np.float32]:
    """Features (N, D) of normalised inputs (N, 3, H, W); `model` is put into evaluation mode and back."""
    training = model.training
    model.eval()
    parts = [model(part).float() for part in inputs.split(batch)]
    model.train(training)
    return torch.cat(parts).cpu().numpy()
