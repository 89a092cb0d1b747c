"""Colour and blur with parameters per view: pixels (N, 3, S, S) in [0, 1] in place of one image and one number.

    brightness  f x                     contrast    f x + (1 - f) mean(grey x)
    saturation  f x + (1 - f) grey x    hue         the angle of the HSV colour turned by f, a share of the circle
    solarize    1 - x where x >= 1/2    blur        three box filters a direction, the border repeated before each

All are clamped to [0, 1]. grey = .299 R + .587 G + .114 B (Pillow; torchvision rounds the first to .2989). The blur is what
Pillow calls Gaussian of radius sigma, which DINO uses: boxes of fractional length with the variance sigma^2 in sum (Gwosdek
et al. 2011, extended box filter). The threshold of `solarize` is that of level 128 of 255 after rounding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
_PASSES = 3
# Smaller than any chroma but 0: a grey pixel keeps its colour, whatever its angle.
_NO_CHROMA = 1e-30


def grey(pixels: Tensor) -> Tensor:
    """Luma (N, 1, S, S)."""
    red, green, blue = pixels.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Towards black or away from it; `factor` (N, 1, 1, 1)."""
    return (pixels * factor).clamp_(0, 1)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Towards the mean luma of the view or away from it; `factor` (N, 1, 1, 1)."""
    return (pixels * factor).add_(grey(pixels).mean((1, 2, 3), keepdim=True) * (1 - factor)).clamp_(0, 1)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Towards each pixel's luma or away from it; `factor` (N, 1, 1, 1)."""
    return (pixels * factor).add_(grey(pixels).mul_(1 - factor)).clamp_(0, 1)


def hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Turned colours; `turn` (N, 1, 1, 1) in [-1/2, 1/2].

    With the channels scaled to [0, 1] by low and chroma, the angle is h = +-(1 - red + green + blue), the sign that of
    green - blue, and the colour of h in [0, 6) is clamp(|h - 3| - 1), clamp(2 - |h - 2|), clamp(2 - |h - 4|). That needs no
    comparisons, sextants or saturation as the usual way through HSV does: those took half of the time.
    """
    red, green, blue = pixels.split(1, dim=1)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(low)
    angle = (green + blue).sub_(red).sub_(low).div_(chroma.clamp_min(_NO_CHROMA)).add_(1).copysign_(green - blue)
    angle.div_(6).add_(turn)
    angle.sub_(angle.floor()).mul_(6)
    shares = torch.cat([(angle - 3).abs_().sub_(1), (angle - 2).abs_().neg_().add_(2), (angle - 4).abs_().neg_().add_(2)], dim=1)
    return torch.addcmul(low, shares.clamp_(0, 1), chroma)


ADJUSTMENTS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)


def solarize(pixels: Tensor) -> Tensor:
    """The upper half of the range inverted."""
    return torch.minimum(pixels, 1 - pixels)


def blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Pillow's Gaussian blur of radius `sigma` (N,), which is best kept on the CPU: the largest decides the filter's length.

    The filter of a direction is a matrix, that of the three boxes applied to the identity: one product each way costs less
    than many passes over the pixels, and repeats the border as Pillow does.
    """
    filters = _filters(box_weights(sigma).to(pixels.device, pixels.dtype), pixels.shape[-1])
    return filters @ pixels @ filters.transpose(-1, -2)


def box_weights(sigma: Tensor) -> Tensor:
    """(N, h + 1) weights of the extended box filter at distances 0 to h; h is that of the largest sigma."""
    variance = sigma.double().square() / _PASSES
    whole = ((12 * variance + 1).sqrt() - 1).div(2).floor()
    edge = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    distance = torch.arange(int(whole.max()) + 2, device=sigma.device)
    inside = distance <= whole[:, None]
    border = torch.where(distance == whole[:, None] + 1, edge[:, None], 0.0)
    return torch.where(inside, 1.0, border) / (2 * (whole + edge) + 1)[:, None]


def _filters(weights: Tensor, size: int) -> Tensor:
    """(N, 1, size, size) matrices of the whole blur along one direction, from the weights (N, h + 1) of one box."""
    reach = weights.shape[1] - 1
    lines = torch.eye(size, device=weights.device, dtype=weights.dtype).expand(len(weights), 1, size, size)
    weight = weights[:, :, None, None, None]
    for _ in range(_PASSES):
        padded = F.pad(lines, (0, 0, reach, reach), mode="replicate")
        lines = lines * weight[:, 0]
        for distance in range(1, reach + 1):
            for start in (reach - distance, reach + distance):
                lines.addcmul_(padded.narrow(2, start, size), weight[:, distance])
    return lines
