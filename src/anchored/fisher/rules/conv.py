"""Two-dimensional convolutions, any stride, padding, dilation and groups.

    d loss_n / d W[o, i, kh, kw] = sum_t g_nt[o] a_n[i, window of t at (kh, kw)]        d loss_n / d b = sum_t g_nt

With the windows of the input laid out as rows this is the rule of a linear layer; T are views and positions. Windows are
ordered (kh, kw, channel), so that a row of a channels-last image is copied in long pieces.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anchored.fisher.rules.products import add_outer_squares, add_vector_squares
from anchored.fisher.rules.registry import Call, Sums, register
from anchored.fisher.rules.rows import channels_last, joined

# Entries of the windows held at once (2 MiB in fp32): they are read again while in the second-level cache.
_WINDOWS = 2**19


@register(nn.Conv2d)
def conv2d(module: nn.Module, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """A few images at a time: the windows of a 3x3 layer are nine times its input."""
    assert isinstance(module, nn.Conv2d)
    if "bias" in sums:
        add_vector_squares(sums["bias"], joined([channels_last(call.g) for call in calls], images))
    if "weight" not in sums:
        return
    if module.groups > 1:
        _grouped(module, calls, images, sums["weight"])
    elif _is_cheaper_swapped(module):
        _swapped(module, calls, images, sums["weight"])
    else:
        _plain(module, calls, images, sums["weight"])


def _plain(module: nn.Conv2d, calls: Sequence[Call], images: int, acc: Tensor) -> None:
    """Windows of the input against the gradient."""
    out, into = module.out_channels, module.in_channels
    kernel = _pair(module.kernel_size)
    squares = acc.new_zeros(out, kernel[0] * kernel[1] * into)
    padded = [_padded(module, call.a) for call in calls]
    for part in _parts(images, sum(call.g[:, 0].numel() for call in calls) * squares.shape[1]):
        gradients = [_rows(call.g, part, images) for call in calls]
        windows = [
            _windows(_rows(a, part, images), kernel, _pair(module.stride), _pair(module.dilation), (g.shape[2], g.shape[3]))
            for a, g in zip(padded, gradients, strict=True)
        ]
        count = len(range(*part.indices(images)))
        g = joined([channels_last(g) for g in gradients], count)
        add_outer_squares(squares, joined([w.flatten(3) for w in windows], count), g)
    acc += squares.view(out, *kernel, into).permute(0, 3, 1, 2)


def _is_cheaper_swapped(module: nn.Conv2d) -> bool:
    """Sliding over the gradient instead of the input costs out / in as many copies; it needs stride 1 and zero padding."""
    return (
        _pair(module.stride) == (1, 1)
        and module.padding_mode == "zeros"
        and _pair(module.kernel_size) != (1, 1)
        and module.out_channels < module.in_channels
    )


def _swapped(module: nn.Conv2d, calls: Sequence[Call], images: int, acc: Tensor) -> None:
    """Windows of the gradient against the input: the same sums, with the kernel's positions in reverse order."""
    out, into = module.out_channels, module.in_channels
    kernel, dilation = _pair(module.kernel_size), _pair(module.dilation)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    left, right, top, bottom = _padding(module)
    border = (reach[1] - left, reach[1] - right, reach[0] - top, reach[0] - bottom)  # negative where the padding exceeds the kernel
    squares = acc.new_zeros(kernel[0] * kernel[1] * out, into)
    for part in _parts(images, sum(call.a[:, 0].numel() for call in calls) * squares.shape[0]):
        inputs = [_rows(call.a, part, images) for call in calls]
        windows = [
            _windows(_bordered(_rows(call.g, part, images), border), kernel, (1, 1), dilation, (a.shape[2], a.shape[3]))
            for a, call in zip(inputs, calls, strict=True)
        ]
        count = len(range(*part.indices(images)))
        a = joined([channels_last(a) for a in inputs], count)
        add_outer_squares(squares, a, joined([w.flatten(3) for w in windows], count))
    acc += squares.view(*kernel, out, into).flip(0, 1).permute(2, 3, 0, 1)


def _grouped(module: nn.Conv2d, calls: Sequence[Call], images: int, acc: Tensor) -> None:
    """Each group is a convolution of its own: one product an image and group."""
    groups, kernel = module.groups, _pair(module.kernel_size)
    out, into = module.out_channels // groups, module.in_channels // groups
    squares = acc.new_zeros(groups, out, kernel[0] * kernel[1] * into)
    padded = [_padded(module, call.a) for call in calls]
    size = sum(call.g[:, 0].numel() for call in calls) * kernel[0] * kernel[1] * module.in_channels
    for part in _parts(images, size):
        gradients = [_rows(call.g, part, images) for call in calls]
        windows = [
            _windows(_rows(a, part, images), kernel, _pair(module.stride), _pair(module.dilation), (g.shape[2], g.shape[3]))
            for a, g in zip(padded, gradients, strict=True)
        ]
        count = len(range(*part.indices(images)))
        a = joined([w.flatten(3) for w in windows], count).to(acc.dtype)  # (B, T, kh * kw * groups * into)
        a = a.unflatten(2, (-1, groups, into)).permute(0, 3, 1, 2, 4).flatten(3)  # (B, groups, T, kh * kw * into)
        g = joined([channels_last(g) for g in gradients], count).to(acc.dtype)
        g = g.unflatten(2, (groups, out)).permute(0, 2, 3, 1)  # (B, groups, out, T)
        squares += torch.matmul(g, a).square_().sum(0)
    acc += squares.view(groups * out, *kernel, into).permute(0, 3, 1, 2)


def _windows(
    images: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """A view (R, H', W', kh, kw, C) of padded images (R, C, H, W): which inputs each of the H' x W' positions sees."""
    rows, channels = images.shape[:2]
    by_row, by_channel, down, across = images.stride()
    return images.as_strided(
        (rows, *grid, *kernel, channels),
        (by_row, down * stride[0], across * stride[1], down * dilation[0], across * dilation[1], by_channel),
    )


def _padded(module: nn.Conv2d, a: Tensor) -> Tensor:
    border = _padding(module)
    if module.padding_mode != "zeros":
        return F.pad(a, border, mode=module.padding_mode)
    return _bordered(a, border)


def _bordered(images: Tensor, border: tuple[int, int, int, int]) -> Tensor:
    """Zero border (left, right, top, bottom), in the memory order of channels-last images."""
    if not any(border):
        return images
    return F.pad(images.movedim(1, -1), (0, 0, *border)).movedim(-1, 1)


def _padding(module: nn.Conv2d) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) in pixels; "same" puts the odd pixel right and below, as torch does."""
    if module.padding == "valid":
        return (0, 0, 0, 0)
    if module.padding == "same":
        total = [d * (k - 1) for d, k in zip(_pair(module.dilation), _pair(module.kernel_size), strict=True)]
        return (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)
    assert not isinstance(module.padding, str)
    down, across = _pair(module.padding)
    return (across, across, down, down)


def _parts(images: int, entries: int) -> list[slice]:
    """Slices of images whose windows, `entries` in all, fit the bound."""
    step = max(1, min(images, _WINDOWS * images // max(1, entries)))
    return [slice(start, start + step) for start in range(0, images, step)]


def _rows(tensor: Tensor, part: slice, images: int) -> Tensor:
    """The rows of the images in `part`."""
    each = len(tensor) // images
    return tensor[part.start * each : part.stop * each]


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    down, across = value
    return down, across
