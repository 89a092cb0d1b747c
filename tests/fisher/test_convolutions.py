"""Every form of a convolution's squared weight gradient against the float64 loop, and which form is taken."""

import pytest
import torch
from fisher_cases import assert_equal_per_tensor, curved, random, randomised
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from anchored.fisher import diagonal_fisher
from anchored.fisher.rules import conv, conv_forms
from anchored.fisher.rules.conv import cheapest_form
from anchored.fisher.rules.registry import Call

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def views_together(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return curved(model(images.flatten(0, 1)).flatten(1), len(images))


def two_sizes(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Two calls of the layer, as multi-crop makes them."""
    return views_together(model, images) + views_together(model, images[..., :6, :5])


layers = st.fixed_dictionaries(
    {
        "groups": st.integers(1, 3),
        "into": st.integers(1, 3),
        "out": st.integers(1, 3),
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 2), st.integers(1, 3)),
        "padding": st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 2)), st.sampled_from(["same", "valid"])),
        "padding_mode": st.sampled_from(["zeros", "reflect", "circular", "replicate"]),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
    }
)


def build(shape: dict, channels_last: bool) -> nn.Module:
    assume(shape["padding"] != "same" or shape["stride"] == (1, 1))
    layer = nn.Conv2d(
        shape["into"] * shape["groups"], shape["out"] * shape["groups"], shape["kernel"], shape["stride"], shape["padding"],
        shape["dilation"], shape["groups"], padding_mode=shape["padding_mode"],
    )
    layer = layer.to(memory_format=torch.channels_last) if channels_last else layer
    return randomised(layer)


@pytest.mark.parametrize("form", ["windows", "image by image", "grouped"])
@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    shape=layers, images=st.integers(1, 4), views=st.integers(1, 2), channels_last=st.booleans(), bound=st.sampled_from([1, 10**9])
)
def test_every_form_is_exact_for_every_layer(
    form: str, shape: dict, images: int, views: int, channels_last: bool, bound: int
):
    """Whatever form shapes would choose, and in whatever pieces."""
    assume(form != "windows" or shape["groups"] == 1)
    layer = build(shape, channels_last)
    batch = random(images, views, layer.in_channels, 7, 6)
    if channels_last:
        batch = batch.movedim(2, -1).contiguous().movedim(-1, 2)
    expected = diagonal_fisher(layer, [batch], two_sizes, backend="loop", dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "cheapest_form", lambda *_: form)
        patch.setattr(conv_forms, "_WINDOWS", bound)
        actual = diagonal_fisher(layer, [batch], two_sizes, backend="hooks", dtype=torch.float64)
    assert_equal_per_tensor(actual, expected)


@pytest.mark.parametrize("form", ["windows", "image by image", "grouped"])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 2, (3, 2), padding=(2, 0)),
        nn.Conv2d(3, 1, (1, 3), padding=(1, 3), dilation=(1, 2)),
        nn.Conv2d(2, 3, (2, 4), padding="same"),
        nn.Conv2d(3, 2, (4, 2), padding="same", dilation=(1, 3)),
        nn.Conv2d(2, 3, (2, 3), padding="same", padding_mode="circular"),
    ],
    ids=["fewer outputs", "fewer outputs, far padding", "same, even", "same, even, fewer outputs", "same, circular"],
)
def test_rare_layers_are_exact_in_every_form(layer: nn.Conv2d, form: str, monkeypatch: pytest.MonkeyPatch):
    """Too rare among random shapes: windows of the gradient, and padding that differs between the two sides."""
    layer, batch = randomised(layer), random(3, 2, layer.in_channels, 7, 6)
    expected = diagonal_fisher(layer, [batch], two_sizes, backend="loop", dtype=torch.float64)
    monkeypatch.setattr(conv, "cheapest_form", lambda *_: form)
    assert_equal_per_tensor(diagonal_fisher(layer, [batch], two_sizes, backend="hooks", dtype=torch.float64), expected)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)), padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    channels_last=st.booleans(), images=st.integers(1, 3),
)
def test_pointwise_convolutions_are_linear_layers(stride: tuple, padding: tuple, channels_last: bool, images: int):
    layer = build({"groups": 1, "into": 3, "out": 2, "kernel": (1, 1), "stride": stride, "padding": padding,
                   "padding_mode": "zeros", "dilation": (1, 1)}, channels_last)  # fmt: skip
    batch = random(images, 2, 3, 7, 6)
    expected = diagonal_fisher(layer, [batch], two_sizes, backend="loop", dtype=torch.float64)
    assert_equal_per_tensor(diagonal_fisher(layer, [batch], two_sizes, backend="hooks", dtype=torch.float64), expected)


def form_of(layer: nn.Conv2d, images: int, views: int, size: int, order: torch.memory_format = torch.channels_last) -> str:
    a = torch.empty(images * views, layer.in_channels, size, size).contiguous(memory_format=order)
    with torch.no_grad():
        return cheapest_form(layer, [Call(a, layer(a))], images)


@pytest.mark.parametrize(
    ("form", "layer", "images", "views", "size"),
    [
        ("image by image", nn.Conv2d(3, 64, 7, 2, 3), 8, 1, 224),
        ("image by image", nn.Conv2d(64, 64, 3, 1, 1), 8, 1, 56),
        ("windows", nn.Conv2d(256, 256, 3, 1, 1), 8, 1, 14),
        ("windows", nn.Conv2d(512, 512, 3, 1, 1), 8, 1, 7),
        ("1 x 1", nn.Conv2d(256, 512, 1, 2), 8, 1, 56),
        ("windows", nn.Conv2d(3, 192, 16, 16), 8, 1, 224),
        ("windows", nn.Conv2d(96, 192, 2, 2), 8, 1, 56),
        ("image by image", nn.Conv2d(96, 96, 7, 1, 3, groups=96), 8, 1, 56),
        ("grouped", nn.Conv2d(1024, 1024, 3, 1, 1, groups=32), 8, 1, 7),
        ("grouped", nn.Conv2d(16, 16, 3, 1, 1), 64, 2, 10),
        ("windows", nn.Conv2d(64, 16, 3, 1, 1), 64, 2, 10),
    ],
)
def test_form_follows_the_measurements(form: str, layer: nn.Conv2d, images: int, views: int, size: int):
    assert form_of(layer, images, views, size) == form


def test_channels_first_images_are_grouped_without_a_copy():
    layer = nn.Conv2d(64, 16, 3, 1, 1)
    assert form_of(layer, 64, 2, 10, torch.contiguous_format) == "grouped"
    assert form_of(nn.Conv2d(96, 96, 7, 1, 3, groups=96), 8, 1, 56, torch.contiguous_format) == "grouped"


@pytest.mark.parametrize("form", ["windows", "image by image", "grouped"])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format], ids=["channels last", "channels first"])
def test_every_form_has_the_same_bits_each_time(form: str, order: torch.memory_format):
    layer = nn.Conv2d(8, 8, 3, 1, 1)
    a, g = (random(12, 8, 9, 9, seed=seed).float().contiguous(memory_format=order) for seed in (1, 2))
    results = [torch.zeros_like(layer.weight.detach()) for _ in range(2)]
    for acc in results:
        conv._FORMS[form](layer, [Call(a, g)], 6, acc)
    assert torch.equal(*results)


@pytest.mark.parametrize("form", ["windows", "image by image", "grouped"])
def test_sums_may_lie_in_either_memory_order(form: str):
    layer = nn.Conv2d(4, 6, 3, 1, 1)
    a, g = random(4, 4, 9, 9), random(4, 6, 9, 9, seed=2)
    first = random(6, 4, 3, 3, seed=3)
    last = first.contiguous(memory_format=torch.channels_last)
    for acc in (first, last):
        conv._FORMS[form](layer, [Call(a, g)], 2, acc)
    torch.testing.assert_close(first, last, rtol=1e-12, atol=1e-12)
