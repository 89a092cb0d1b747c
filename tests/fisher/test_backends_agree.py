import pytest
import torch
from fisher_cases import CASES, IMAGES, Case, assert_equal_per_tensor, curved, largest_difference, random, randomised, vit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anchored.fisher import diagonal_fisher

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hooks_equal_loop(case: Case):
    """Once, token gradients were squared before they were summed: the global cosine stayed 1.0000."""
    model, batch = case.model(), case.batch()
    expected = diagonal_fisher(model, [batch], case.loss, backend="loop", dtype=torch.float64)
    actual = diagonal_fisher(model, [batch], case.loss, backend="hooks", dtype=torch.float64)
    assert expected.count == actual.count == IMAGES
    assert_equal_per_tensor(actual, expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fp32_hooks_are_close_to_the_float64_loop(case: Case):
    exact = diagonal_fisher(case.model(), [case.batch()], case.loss, backend="loop", dtype=torch.float64)
    single = case.model(torch.float32)
    batch = case.batch()
    batch = tuple(part.float() for part in batch) if isinstance(batch, tuple) else batch.float()
    actual = diagonal_fisher(single, [batch], case.loss, backend="hooks")
    assert all(tensor.dtype == torch.float32 for tensor in actual.values())
    worst = largest_difference({name: tensor.double() for name, tensor in actual.items()}, exact)
    assert max(worst.values()) < 1e-3, worst


@pytest.mark.parametrize("case", [CASES[1], CASES[9], CASES[15]], ids=lambda case: case.name)
def test_loop_is_the_definition(case: Case):
    """The loop itself against one gradient an image, written out."""
    model, batch = case.model(), case.batch()
    parameters = dict(model.named_parameters())
    expected = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for n in range(IMAGES):
        gradients = torch.autograd.grad(case.loss(model, batch)[n], list(parameters.values()))
        for total, gradient in zip(expected.values(), gradients, strict=True):
            total += gradient**2 / IMAGES
    assert_equal_per_tensor(diagonal_fisher(model, [batch], case.loss, backend="loop", dtype=torch.float64), expected)


linears = st.fixed_dictionaries(
    {
        "into": st.integers(1, 6),
        "out": st.integers(1, 6),
        "tokens": st.integers(0, 4),
        "images": st.integers(1, 4),
        "bias": st.booleans(),
    }
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(linears)
def test_any_linear(shape: dict):
    layer = randomised(nn.Linear(shape["into"], shape["out"], bias=shape["bias"]))
    tokens = [shape["tokens"]] if shape["tokens"] else []
    assert_backends_agree(layer, random(shape["images"], *tokens, shape["into"]))


convolutions = st.fixed_dictionaries(
    {
        "groups": st.integers(1, 3),
        "into": st.integers(1, 3),
        "out": st.integers(1, 3),
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 2), st.integers(1, 3)),
        "padding": st.tuples(st.integers(0, 3), st.integers(0, 3)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "images": st.integers(1, 4),
        "channels_last": st.booleans(),
    }
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(convolutions)
def test_any_convolution(shape: dict):
    layer = nn.Conv2d(
        shape["into"] * shape["groups"],
        shape["out"] * shape["groups"],
        shape["kernel"],
        shape["stride"],
        shape["padding"],
        shape["dilation"],
        shape["groups"],
    )
    images = random(shape["images"], shape["into"] * shape["groups"], 7, 6)
    if shape["channels_last"]:
        images = images.contiguous(memory_format=torch.channels_last)
    assert_backends_agree(randomised(layer), images)


def assert_backends_agree(layer: nn.Module, images: torch.Tensor) -> None:
    def loss(model, batch):
        return curved(model(batch).flatten(1), len(batch))

    expected = diagonal_fisher(layer, [images], loss, backend="loop", dtype=torch.float64)
    assert_equal_per_tensor(diagonal_fisher(layer, [images], loss, backend="hooks", dtype=torch.float64), expected)


def test_chunked_products_equal_whole_ones(monkeypatch: pytest.MonkeyPatch):
    """Bounds on memory decide in how many pieces an image's products come; they must not decide the result."""
    from anchored.fisher.rules import conv_forms, products

    results = []
    for chunk, windows, buffer in ((1, 1, 10**9), (10**9, 10**9, 10**9), (500, 3000, 10**9), (1, 1, 1)):
        monkeypatch.setattr(products, "_CHUNK", chunk)
        monkeypatch.setattr(products, "_BUFFER_FROM", buffer)
        monkeypatch.setattr(conv_forms, "_WINDOWS", windows)
        cases = (CASES[1], CASES[9], CASES[13])
        results.append([diagonal_fisher(case.model(), [case.batch()], case.loss, dtype=torch.float64) for case in cases])
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            assert_equal_per_tensor(actual, expected, rtol=1e-12)


def test_unreached_tokens_are_skipped_and_nothing_else():
    from anchored.fisher.rules.products import reached_tokens

    a, g = random(3, 5, 4), torch.zeros(3, 5, 2, dtype=torch.float64)
    g[1, 0], g[2, 3] = 1.0, 1e-200
    less_a, less_g = reached_tokens(a, g)
    assert torch.equal(less_a, a[:, [0, 3]])
    assert torch.equal(less_g, g[:, [0, 3]])
    assert reached_tokens(a, torch.zeros_like(g))[0].shape[1] == 1
    dense = random(3, 5, 2)
    assert reached_tokens(a, dense)[1] is dense


def test_squaring_per_view_is_another_number():
    """The views of an image are one image: squared one by one, they gave 0.19 times the Fisher of DINO."""
    case = CASES[1]
    model, batch = case.model(), case.batch()
    joined = diagonal_fisher(model, [batch], case.loss, dtype=torch.float64)
    per_view = diagonal_fisher(model, [batch.flatten(0, 1)[:, None]], case.loss, dtype=torch.float64)
    assert min(largest_difference(per_view, joined).values()) > 0.05


def test_teacher_pass_through_the_same_model_is_ignored():
    case = CASES[0]

    def loss(model, images):
        with torch.no_grad():
            target = model(images.flip(-1)).softmax(-1)
        wasted = model(images.flip(-2))  # with gradients, but outside the loss
        return -(target * model(images).log_softmax(-1)).sum(-1) + 0.0 * wasted.detach().sum(-1)

    model, batch = case.model(), case.batch()
    expected = diagonal_fisher(model, [batch], loss, backend="loop", dtype=torch.float64)
    assert_equal_per_tensor(diagonal_fisher(model, [batch], loss, backend="hooks", dtype=torch.float64), expected)


def test_bfloat16_autocast_is_close_and_accumulates_in_fp32():
    model, images = randomised(vit(), torch.float32), random(8, 3, 16, 16).float()

    def loss(network, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network(batch)
        return curved(out.float(), len(batch))

    exact = diagonal_fisher(model, [images], lambda m, b: curved(m(b), len(b)), backend="loop")
    rounded = diagonal_fisher(model, [images], loss, backend="hooks")
    assert all(tensor.dtype == torch.float32 for tensor in rounded.values())
    for name in exact:
        assert float(rounded[name].sum() / exact[name].sum()) == pytest.approx(1.0, abs=0.3), name
