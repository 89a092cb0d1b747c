"""Forms of the squared weight gradient of a convolution: each function adds sum_n (d loss_n / d W)^2 to `acc`, like W in shape.

All are exact for every convolution without (`windows`) or with any number of groups (`image_by_image`, `grouped`). The grouped form
is that of Rochette, Manoel & Tramel 2019, arXiv 1912.06015, with images as groups and no dimension added.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anchored.fisher.rules.products import add_outer_squares
from anchored.fisher.rules.registry import Call
from anchored.fisher.rules.rows import channels_last, joined

# Entries of copies held at once (2 MiB in fp32): they are read again while in the second-level cache.
_WINDOWS = 2**19


def windows(module: nn.Conv2d, calls: Sequence[Call], images: int, acc: Tensor) -> None:
    """Rows are (kh, kw, channel), so that a row of a channels-last image is copied in long pieces."""
    if _is_cheaper_swapped(module):
        _windows_of_gradient(module, calls, images, acc)
    else:
        _windows_of_input(module, calls, images, acc)


def image_by_image(module: nn.Conv2d, calls: Sequence[Call], images: int, acc: Tensor) -> None:
    """The library's weight gradient of each image alone; calls are added before the square."""
    # Only its shape and memory order are used, and a followed filter's module has no more than these.
    weight = torch.empty_like(module.weight, dtype=acc.dtype, device=acc.device)
    parts = [(_plainly_padded(module, call.a).to(acc.dtype), call.g.to(acc.dtype)) for call in calls]
    squares = acc.new_zeros(acc.shape).contiguous(memory_format=_memory_order(parts[0][0]))
    for n in range(images):
        image = slice(n, n + 1)
        gradient = _added(_weight_gradient(module, rows(a, image, images), rows(g, image, images), weight) for a, g in parts)
        squares.addcmul_(gradient, gradient)
    acc += squares


def grouped(module: nn.Conv2d, calls: Sequence[Call], images: int, acc: Tensor) -> None:
    """Images become groups of channels, views stay rows: (B * V, C, H, W) to (V, B * C, H, W)."""
    padded_inputs = [_plainly_padded(module, call.a) for call in calls]
    entries = images * acc.numel() + sum(a.numel() + call.g.numel() for a, call in zip(padded_inputs, calls, strict=True))
    for part in parts_of(images, entries):
        count = len(range(*part.indices(images)))
        weight = acc.new_empty(count * acc.shape[0], *acc.shape[1:])  # only its shape is used
        pairs = [[_images_as_channels(rows(t, part, images), count).to(acc.dtype) for t in (a, call.g)]
                 for a, call in zip(padded_inputs, calls, strict=True)]
        gradient = _added(_weight_gradient(module, a, g, weight, count) for a, g in pairs)
        acc += gradient.reshape(count, *acc.shape).square_().sum(0)


def _windows_of_input(module: nn.Conv2d, calls: Sequence[Call], images: int, acc: Tensor) -> None:
    """Windows of the input against the gradient."""
    out, into = module.out_channels, module.in_channels
    kernel = pair(module.kernel_size)
    # Sums that lie in memory as the rows do take the products directly; others get them once, at the end.
    inverse = acc.permute(0, 2, 3, 1)
    squares = inverse.view(out, -1) if inverse.is_contiguous() else acc.new_zeros(out, kernel[0] * kernel[1] * into)
    inputs = [padded(module, call.a) for call in calls]
    for part in parts_of(images, sum(call.g[:, 0].numel() for call in calls) * squares.shape[1]):
        gradients = [rows(call.g, part, images) for call in calls]
        seen = [
            _windows(rows(a, part, images), kernel, pair(module.stride), pair(module.dilation), (g.shape[2], g.shape[3]))
            for a, g in zip(inputs, gradients, strict=True)
        ]
        count = len(range(*part.indices(images)))
        g = joined([channels_last(g) for g in gradients], count)
        add_outer_squares(squares, joined([w.flatten(3) for w in seen], count), g)
    if not inverse.is_contiguous():
        acc += squares.view(out, *kernel, into).permute(0, 3, 1, 2)


def _is_cheaper_swapped(module: nn.Conv2d) -> bool:
    """Sliding over the gradient instead of the input costs out / in as many copies; it needs stride 1 and zero padding."""
    return pair(module.stride) == (1, 1) and module.padding_mode == "zeros" and module.out_channels < module.in_channels


def _windows_of_gradient(module: nn.Conv2d, calls: Sequence[Call], images: int, acc: Tensor) -> None:
    """Windows of the gradient against the input: the same sums, with the kernel's positions in reverse order."""
    out, into = module.out_channels, module.in_channels
    kernel, dilation = pair(module.kernel_size), pair(module.dilation)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    left, right, top, bottom = padding(module)
    border = (reach[1] - left, reach[1] - right, reach[0] - top, reach[0] - bottom)  # negative where the padding exceeds the kernel
    squares = acc.new_zeros(kernel[0] * kernel[1] * out, into)
    for part in parts_of(images, sum(call.a[:, 0].numel() for call in calls) * squares.shape[0]):
        inputs = [rows(call.a, part, images) for call in calls]
        seen = [
            _windows(_bordered(rows(call.g, part, images), border), kernel, (1, 1), dilation, (a.shape[2], a.shape[3]))
            for a, call in zip(inputs, calls, strict=True)
        ]
        count = len(range(*part.indices(images)))
        a = joined([channels_last(a) for a in inputs], count)
        add_outer_squares(squares, a, joined([w.flatten(3) for w in seen], count))
    acc += squares.view(*kernel, out, into).flip(0, 1).permute(2, 3, 0, 1)


def _windows(
    images: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """A view (R, H', W', kh, kw, C) of padded images (R, C, H, W): which inputs each of the H' x W' positions sees."""
    count, channels = images.shape[:2]
    by_row, by_channel, down, across = images.stride()
    return images.as_strided(
        (count, *grid, *kernel, channels),
        (by_row, down * stride[0], across * stride[1], down * dilation[0], across * dilation[1], by_channel),
        images.storage_offset(),
    )


def _weight_gradient(module: nn.Conv2d, a: Tensor, g: Tensor, weight: Tensor, images_as_groups: int = 1) -> Tensor:
    """The library's gradient of W for all rows together."""
    left, _, top, _ = padding(module) if _library_pads(module) else (0, 0, 0, 0)
    return torch.ops.aten.convolution_backward(
        g, a, weight, [0], list(pair(module.stride)), [top, left], list(pair(module.dilation)),
        False, [0, 0], images_as_groups * module.groups, [False, True, False],
    )[1]


def _added(gradients: Iterable[Tensor]) -> Tensor:
    first, *others = gradients
    for other in others:
        first = first + other
    return first


def _images_as_channels(tensor: Tensor, images: int) -> Tensor:
    """(B * V, C, H, W) to (V, B * C, H, W), channels first; a view where V is 1 and the memory has that order."""
    return tensor.contiguous().unflatten(0, (images, -1)).transpose(0, 1).flatten(1, 2).contiguous()


def _library_pads(module: nn.Conv2d) -> bool:
    """The library adds zeros, as many on the one side as on the other."""
    left, right, top, bottom = padding(module)
    return module.padding_mode == "zeros" and left == right and top == bottom


def _plainly_padded(module: nn.Conv2d, a: Tensor) -> Tensor:
    """The input with the borders that the library does not add by itself."""
    return a if _library_pads(module) else padded(module, a)


def padded(module: nn.Conv2d, a: Tensor) -> Tensor:
    """The input with its borders."""
    border = padding(module)
    if module.padding_mode != "zeros":
        return F.pad(a, border, mode=module.padding_mode)
    return _bordered(a, border)


def _bordered(images: Tensor, border: tuple[int, int, int, int]) -> Tensor:
    """Zero border (left, right, top, bottom), in the memory order of channels-last images."""
    if not any(border):
        return images
    return F.pad(images.movedim(1, -1), (0, 0, *border)).movedim(-1, 1)


def padding(module: nn.Conv2d) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) in pixels; "same" puts the odd pixel right and below, as torch does."""
    if module.padding == "valid":
        return (0, 0, 0, 0)
    if module.padding == "same":
        total = [d * (k - 1) for d, k in zip(pair(module.dilation), pair(module.kernel_size), strict=True)]
        return (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)
    assert not isinstance(module.padding, str)
    down, across = pair(module.padding)
    return (across, across, down, down)


def parts_of(images: int, entries: int) -> list[slice]:
    """Slices of images whose copies, `entries` in all, fit the bound."""
    step = max(1, min(images, _WINDOWS * images // max(1, entries)))
    return [slice(start, start + step) for start in range(0, images, step)]


def rows(tensor: Tensor, part: slice, images: int) -> Tensor:
    """The rows of the images in `part`."""
    each = len(tensor) // images
    return tensor[part.start * each : part.stop * each]


def pair(value: tuple[int, ...]) -> tuple[int, int]:
    """(down, across)."""
    down, across = value
    return down, across


def _memory_order(tensor: Tensor) -> torch.memory_format:
    return torch.contiguous_format if tensor.is_contiguous() else torch.channels_last
