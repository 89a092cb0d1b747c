"""Two-dimensional convolutions, any stride, padding, dilation and groups.

    d loss_n / d W[o, i, kh, kw] = sum_t g_nt[o] a_n[i, window of t at (kh, kw)]        d loss_n / d b = sum_t g_nt

T are positions and views. Four exact forms, chosen from shapes and memory order alone, so that the same measurement always has
the same bits; `conv_forms.py` holds all but the first:

    1 x 1           a linear layer; a stride takes a slice of the input
    windows         the inputs that each position sees, laid out as rows: a linear layer with kh * kw times the input. Copies
                    most, and has the best products: for small maps. Sliding over g instead of the input where that is smaller.
    image by image  the library's own weight gradient, one call an image: what the loop backend does. For large maps, where a call
                    costs nothing and windows cost most.
    grouped         one call of the library's weight gradient for all images, each a group of channels of its own. For few
                    channels on maps of some size, and for what is grouped anyway.

Time over that of the ordinary weight gradient of the batch, which is no Fisher; one core, torch 2.13 with oneDNN, channels-last
(channels-first in brackets):

    layer, kernel, output, images              windows       image by image    grouped
    3 -> 64, 7/2, 112 px, 8                    1.71 (1.66)   1.19 (0.98)       4.10 (1.95)
    64 -> 64, 3, 56 px, 8                      1.85 (1.32)   1.25 (1.02)       1.71 (0.99)
    128 -> 128, 3, 28 px, 8                    1.55 (1.46)   1.39 (1.25)       1.99 (1.22)
    256 -> 256, 3, 14 px, 8                    1.49 (1.41)   2.05 (1.37)       3.82 (1.73)
    512 -> 512, 3, 7 px, 8                     1.52 (2.00)   4.27 (2.95)       7.37 (7.58)
    96 -> 192, 2/2, 28 px, 8                   1.07          1.32              2.00
    64 -> 16, 3, 10 px, 64 of two views        2.65 (2.09)   5.02 (3.71)       2.76 (1.59)
    16 -> 16, 3, 10 px, 64 of two views        5.14 (4.11)   13.2 (8.07)       2.64 (1.46)
    48 -> 64, 3/2, 2 px, 64 of two views       3.29 (3.11)   23.0 (12.5)       29.7 (26.3)
    96 in 96 groups, 7, 56 px, 8               -             1.19 (1.06)       3.68 (1.00)
    384 in 384 groups, 7, 14 px, 8             -             2.41 (0.87)       2.79 (0.94)
    1024 in 32 groups, 3, 7 px, 8              -             3.98 (2.21)       2.82 (2.57)
    32 in 32 groups, 3, 10 px, 64 of two       -             12.7 (7.26)       4.72 (1.39)
"""

from collections.abc import Sequence

from torch import Tensor, nn

from anchored.fisher.rules import conv_forms as forms
from anchored.fisher.rules.products import add_outer_squares, add_vector_squares
from anchored.fisher.rules.registry import Call, Sums, register
from anchored.fisher.rules.rows import channels_last, joined

# Entries of an image's output gradient from which the library's call an image costs less than laying out windows.
_LARGE_MAP = 2**16
# Products of channels up to which all images in one grouped call are cheaper than windows, and positions from which. Grouped
# gradients are those of channels-first images; channels-last ones are copied before.
_FEW_CHANNELS = {"first": 1024, "last": 256}
_SOME_POSITIONS = 64


@register(nn.Conv2d)
def conv2d(module: nn.Module, calls: Sequence[Call], images: int, sums: Sums) -> None:
    """The form is chosen for each layer and batch."""
    assert isinstance(module, nn.Conv2d)
    if "bias" in sums:
        add_vector_squares(sums["bias"], joined([channels_last(call.g) for call in calls], images))
    if "weight" in sums:
        _FORMS[cheapest_form(module, calls, images)](module, calls, images, sums["weight"])


def cheapest_form(module: nn.Conv2d, calls: Sequence[Call], images: int) -> str:
    """Which of the forms above is fastest, by the measurements above."""
    kernel, stride = forms.pair(module.kernel_size), forms.pair(module.stride)
    positions = sum(call.g[:, 0].numel() for call in calls) // images
    large = positions * module.out_channels >= _LARGE_MAP
    order = "first" if calls[0].a.is_contiguous() else "last"
    on_gpu = calls[0].a.is_cuda  # a call an image would leave it idle
    if module.groups > 1:
        return "image by image" if large and order == "last" and not on_gpu else "grouped"
    if kernel == (1, 1):
        return "1 x 1"
    overlapping = kernel[0] * kernel[1] > stride[0] * stride[1]
    if on_gpu or not overlapping:
        return "windows"
    if large:
        return "image by image"
    few = module.in_channels * module.out_channels <= _FEW_CHANNELS[order]
    return "grouped" if few and positions >= _SOME_POSITIONS else "windows"


def pointwise(module: nn.Conv2d, calls: Sequence[Call], images: int, acc: Tensor) -> None:
    """A linear layer over positions."""
    down, across = forms.pair(module.stride)
    a = [channels_last(forms.padded(module, call.a)[:, :, ::down, ::across]) for call in calls]
    g = [channels_last(call.g) for call in calls]
    add_outer_squares(acc.view(acc.shape[:2]), joined(a, images), joined(g, images))


_FORMS = {
    "1 x 1": pointwise,
    "windows": forms.windows,
    "image by image": forms.image_by_image,
    "grouped": forms.grouped,
}
