"""Anti-aliased crops of uint8 images, every view with a box of its own: Pillow's bicubic and bilinear arithmetic in batches.

    out = round(Wy round(image Wx^T))        W[i, x] ~ kernel((x + 1/2 - centre_i) / max(scale, 1))
    centre_i = start + (i + 1/2) scale,      scale = length / size,  rows of W sum to 1, pixels outside of the box weigh nothing

The kernel widens with the scale, so a reduced crop does not alias (grid sampling, of four neighbours whatever the scale, would).
`crop_each` asks torch's own uint8 kernel, a port of Pillow's, view by view: the fastest on a CPU, and a view has the same
bits in any batch. `crop_together` is two matrix products for the whole batch, for a device where a launch is dear and
products are cheap. Both round to 8 bits after each direction, as Pillow does, and differ by a level where a tie falls.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Filter = Literal["bicubic", "bilinear"]


def crop(images: Tensor, boxes: Tensor, flips: Tensor, size: int, filter_: Filter = "bicubic") -> Tensor:
    """Crops of `images`, resized, some of them mirrored.

    Args:
        images: (B, H, W, 3) uint8.
        boxes: (B, V, 4) integers: top, left, height, width; inside the image.
        flips: (B, V) bool: mirror left and right.
        size: side S of the result.
        filter_: Pillow's kernel.

    Returns:
        (B, V, 3, S, S) uint8, on the device of `images`.
    """
    return (crop_each if images.device.type == "cpu" else crop_together)(images, boxes, flips, size, filter_)


def crop_each(images: Tensor, boxes: Tensor, flips: Tensor, size: int, filter_: Filter = "bicubic") -> Tensor:
    """`crop`, one call of torch's resize a view; its uint8 kernel exists on a CPU only."""
    out = torch.empty(*boxes.shape[:2], 3, size, size, dtype=torch.uint8)
    for image, of_image, mirrored, views in zip(images.permute(0, 3, 1, 2), boxes.tolist(), flips.tolist(), out, strict=True):
        for (top, left, height, width), mirror, view in zip(of_image, mirrored, views, strict=True):
            window = image[None, :, top : top + height, left : left + width]
            resized = F.interpolate(window, size=(size, size), mode=filter_, antialias=True)[0]
            view.copy_(resized.flip(-1) if mirror else resized)
    return out


def crop_together(images: Tensor, boxes: Tensor, flips: Tensor, size: int, filter_: Filter = "bicubic") -> Tensor:
    """`crop`, two batched matrix products for all views."""
    count, height, width = images.shape[:3]
    views = boxes.shape[1]
    kernel = _KERNELS[filter_]
    down = _weights(boxes[..., 0], boxes[..., 2], height, size, kernel)
    across = _weights(boxes[..., 1], boxes[..., 3], width, size, kernel)
    across = torch.where(flips[..., None, None], across.flip(-2), across)
    lines = images.permute(0, 3, 1, 2).reshape(count, 3 * height, width).float()
    # All views of an image share one product over its columns: the image is not copied for each of them.
    rows = _levels(lines @ across.flatten(1, 2).transpose(1, 2)).view(count, 3, height, views, size)
    columns = rows.permute(0, 3, 2, 1, 4).reshape(count, views, height, 3 * size)
    return _levels(down @ columns).view(count, views, size, 3, size).transpose(2, 3).to(torch.uint8)


def _weights(start: Tensor, length: Tensor, pixels: int, size: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """(B, V, size, pixels): the share of each pixel of a line in each pixel of the result."""
    start, scale = start[..., None, None].double(), (length.double() / size)[..., None, None]
    place = torch.arange(pixels, device=start.device) + 0.5 - start
    centre = (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    weights = kernel((place - centre) / scale.clamp(min=1)) * ((place > 0) & (place < length[..., None, None]))
    return (weights / weights.sum(-1, keepdim=True)).float()


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2, which is Pillow's."""
    d = distance.abs()
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d < 1, near, torch.where(d < 2, far, 0.0))


def _triangle(distance: Tensor) -> Tensor:
    """Pillow's kernel of bilinear interpolation."""
    return (1 - distance.abs()).clamp(min=0)


_KERNELS: dict[Filter, Callable[[Tensor], Tensor]] = {"bicubic": _cubic, "bilinear": _triangle}


def _levels(values: Tensor) -> Tensor:
    """Rounded to the nearest level; half a level goes up."""
    return values.add_(0.5).floor_().clamp_(0, 255)
