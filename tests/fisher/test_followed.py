"""Parameters outside layers with rules: followed to the functions that use them, and exact."""

import pytest
import torch
import torch.nn.functional as F
from fisher_cases import IMAGES, assert_equal_per_tensor, curved, random, randomised, vit
from torch import Tensor, nn

from anchored.fisher import diagonal_fisher


def flat(model: nn.Module, views: Tensor) -> Tensor:
    return curved(model(views.flatten(0, 1)).flatten(1), len(views))


def assert_native(model: nn.Module, views: Tensor, loss=flat) -> None:
    """Two batches of different sizes: what is learnt on the first one has to hold for the second."""
    model = randomised(model)
    batches = [views[:3], views[3:]]
    expected = diagonal_fisher(model, batches, loss, backend="loop", dtype=torch.float64)
    assert_equal_per_tensor(diagonal_fisher(model, batches, loss, backend="hooks", dtype=torch.float64), expected)


class Acting(nn.Module):
    """linear, then `act(x, p)` with p of `shape`, then linear."""

    def __init__(self, shape, act, width: int = 6) -> None:
        super().__init__()
        self.first, self.p, self.last = nn.Linear(6, 6), nn.Parameter(torch.zeros(shape)), nn.Linear(width, 3)
        self.act = act

    def forward(self, x):
        return self.last(self.act(self.first(x), self.p).tanh())


def into(x: Tensor, p: Tensor) -> Tensor:
    x += p
    return x


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, 3)).transpose(1, 2)


def by_attention(x: Tensor, p: Tensor) -> Tensor:
    x, bias = heads(x), p[:, [0, 1, 2, 2, 1, 0, 0, 0, 1]].view(1, 2, 3, 3)
    return F.scaled_dot_product_attention(x, x * 0.5, x, attn_mask=bias).transpose(1, 2).flatten(2)


def pooled(x: Tensor, p: Tensor) -> Tensor:
    """A learned query, the same for all images: what it passes before it meets them holds no image."""
    x = heads(x)
    q = heads(p.exp().expand(len(x), -1, -1))
    return F.scaled_dot_product_attention(q, x, x).transpose(1, 2).flatten(2)


# x has (rows, 3 tokens, 6 features)
ACTS = {
    "scale": ((6,), lambda x, p: x * p),
    "scale of a view": ((6,), lambda x, p: p.view(1, 1, -1) * x),
    "one number": ((), lambda x, p: x.mul_(p)),
    "power of one number": ((1,), lambda x, p: x * p.exp()),
    "token positions": ((1, 3, 6), lambda x, p: x + p),
    "positions without leading one": ((3, 6), torch.add),
    "added in place": ((1, 3, 6), into),
    "scaled in place": ((6,), lambda x, p: x.mul_(p)),
    "divided": ((3, 1), lambda x, p: x / (p.square() + 1)),
    "subtracted from": ((6,), lambda x, p: 1 - p * x - p),
    "used twice": ((6,), lambda x, p: (x * p).tanh() + p),
    "class token": ((1, 1, 6), lambda x, p: torch.cat([p.expand(len(x), -1, -1), x], dim=1)),
    "class token and position of one": ((1, 1, 6), lambda x, p: torch.cat([(p + p * 2).expand(len(x), -1, -1), x + p], dim=1)),
    "repeated token": ((1, 6), lambda x, p: torch.cat([x, p.repeat(len(x), 1, 1)], dim=1)),
    "token after expansion": ((1, 1, 6), lambda x, p: torch.cat([p.expand(len(x), -1, -1).sin(), x], dim=1)),
    "resized positions": ((1, 6, 2, 2), lambda x, p: x + F.interpolate(p, size=(1, 3), mode="bilinear").flatten(2).transpose(1, 2)),
    "attention bias": ((2, 4), by_attention),
    "learned query": ((1, 2, 6), pooled),
    "matrix": ((6, 6), lambda x, p: x @ p),
    "matrix from the left": ((4, 3), lambda x, p: p @ x),
    "functional linear": ((6, 6), lambda x, p: F.linear(x, p)),
    "standardised linear": ((6, 6), lambda x, p: F.linear(x, F.normalize(p, dim=1), p[0])),
    "two of one matrix": ((6, 6), lambda x, p: F.linear(F.linear(x, p).tanh(), p)),
    "einsum": ((2, 3, 3), lambda x, p: torch.einsum("bthd,hde->bthe", x.unflatten(-1, (2, 3)), p).flatten(2)),
    "prelu": ((3,), lambda x, p: F.prelu(x, p)),
    "layer norm": ((6,), lambda x, p: F.layer_norm(x, (6,), p, p)),
    "rms norm": ((6,), lambda x, p: F.rms_norm(x, (6,), p)),
    "group norm": ((3,), lambda x, p: F.group_norm(x, 1, p, p)),
    "batch norm": ((3,), lambda x, p: F.batch_norm(x, p.detach() * 0 + 0.1, p.detach() * 0 + 0.7, p, p)),
    "convolution": ((3, 3, 3), lambda x, p: F.conv1d(x, p, padding=1)),
    "standardised convolution": (
        (3, 1, 3, 3),
        lambda x, p: F.conv2d(x[:, :, None], (p - p.mean()) / p.std(), padding=1, groups=3)[:, :, 0],
    ),
    "plain convolution": ((3, 3, 1, 3), lambda x, p: F.conv2d(x[:, :, None], p, padding=(0, 1), stride=(1, 1))[:, :, 0]),
    "same convolution": ((3, 3, 1, 3), lambda x, p: F.conv2d(x[:, :, None], p, padding="same")[:, :, 0]),
    "written into zeros": ((6,), lambda x, p: x * torch.zeros(3, 6, dtype=x.dtype).index_fill(1, torch.tensor([1]), 1.0) * p),
}  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
def test_a_followed_parameter_is_exact(act):
    shape, function = ACTS[act]
    assert_native(Acting(shape, function), random(IMAGES, 2, 3, 6))


def test_rows_of_a_parameter_are_not_taken_for_images():
    """Six rows a batch, and a parameter of six rows."""
    model = randomised(Acting((6, 6), lambda x, p: F.linear(x, p.sin())))
    views = random(3, 2, 6)
    expected = diagonal_fisher(model, [views], flat, backend="loop", dtype=torch.float64)
    assert_equal_per_tensor(diagonal_fisher(model, [views], flat, backend="hooks", dtype=torch.float64), expected)


class Borrowing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return F.linear(self.first(x).tanh(), self.second.weight) + self.second(x)


def test_a_weight_used_outside_its_layer_is_joined_with_it():
    """The layer's own call has a rule; the borrowed use alone, or each squared by itself, would be another number."""
    assert_native(Borrowing(), random(IMAGES, 2, 6))


def test_shared_weights_are_added_before_the_square():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    assert_native(model, random(IMAGES, 2, 6))


def test_a_shared_layer_norm():
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh(), nn.LayerNorm(6))
    model[3].weight = model[1].weight
    assert_native(model, random(IMAGES, 2, 6))


def test_a_frozen_part_of_a_sum_is_a_constant():
    model = Borrowing()
    model.second.weight.requires_grad_(False)
    assert_native(model, random(IMAGES, 2, 6))


def test_a_parametrised_weight():
    assert_native(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Tanh()), random(IMAGES, 2, 6))


def test_a_layer_that_sees_no_image():
    """A network over positions: its rows are not those of images, and its result belongs to all of them."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Sequential(nn.Linear(2, 8), nn.ReLU(inplace=True), nn.LayerNorm(8), nn.Linear(8, 6))
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
            self.register_buffer("grid", random(3, 2))

        def forward(self, x):
            return self.last((self.first(x) * self.table(self.grid)).tanh() + self.table(torch.ones(1, 2, dtype=x.dtype)))

    assert_native(Positions(), random(IMAGES, 2, 3, 6))


@pytest.mark.parametrize("same", [True, False])
def test_multi_head_attention(same):
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.attend = nn.Linear(6, 6), nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x):
            x = self.first(x)
            return self.attend(x, *((x, x) if same else (x.flip(1), x * 2)), need_weights=False)[0]

    assert_native(Attending(), random(IMAGES, 2, 3, 6))


def test_an_activation_in_place_on_tokens():
    """`F.linear` of tokens returns a view; once it was changed in place, its hook fell silent and the Fisher was zero."""
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    assert_native(model, random(IMAGES, 2, 3, 6))


def test_one_image_in_the_first_batch_proves_nothing_about_rows():
    """With one image every order of rows is right; the second batch has to be looked at as well."""
    from anchored.fisher.errors import CoupledImages

    def view_major(network, views):
        return network(views.transpose(0, 1).flatten(0, 1)).unflatten(0, (2, len(views))).square().sum((0, 2))

    views = random(4, 2, 6)
    with pytest.raises(CoupledImages):
        diagonal_fisher(randomised(nn.Linear(6, 2)), [views[:1], views[1:]], view_major, backend="hooks")


def test_a_vit_without_position_embedding():
    assert_native(vit(pos_embed="none"), random(IMAGES, 2, 3, 16, 16))


def test_scales_in_place():
    model = vit(init_values=0.1)
    model.blocks[1].ls2.inplace = True
    assert_native(model, random(IMAGES, 2, 3, 16, 16))


def test_a_parameter_that_a_rule_does_not_know():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)
            self.fc.register_parameter("gate", nn.Parameter(torch.ones(2)))

        def forward(self, x):
            return self.fc(x) * self.fc.gate

    assert_native(Gated(), random(IMAGES, 2, 6))


def test_many_images_are_divided_into_parts(monkeypatch: pytest.MonkeyPatch):
    """A bound on memory must not decide the result."""
    from anchored.fisher import followed

    monkeypatch.setattr(followed, "_HELD", 40)
    for act in ("standardised linear", "token after expansion", "class token", "einsum", "layer norm"):
        assert_native(Acting(*ACTS[act]), random(IMAGES, 2, 3, 6))


@pytest.mark.parametrize("act", ["attention bias", "class token", "standardised linear", "einsum", "layer norm"])
def test_bfloat16_autocast(act):
    """Sums over tokens in 16 bit are far from exact in autograd's own gradients; that is no reason to refuse."""
    model, views = randomised(Acting(*ACTS[act]), torch.float32), random(IMAGES, 2, 3, 6).float()

    def loss(network, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network(batch.flatten(0, 1))
        return curved(out.flatten(1).float(), len(batch))

    exact = diagonal_fisher(model, [views], flat, backend="loop")
    rounded = diagonal_fisher(model, [views], loss, backend="hooks")
    assert all(tensor.dtype == torch.float32 for tensor in rounded.values())
    for name in exact:
        assert float(rounded[name].sum() / exact[name].sum()) == pytest.approx(1.0, abs=0.3), name


def test_a_penalty_on_parameters_belongs_to_every_image():
    def loss(model, views):
        return flat(model, views) + model.p.square().sum()

    assert_native(Acting((6,), torch.mul), random(IMAGES, 2, 3, 6), loss)


class Standardised(nn.Conv2d):
    """A filter computed from its parameter: no layer with a rule, hence followed to `F.conv2d`."""

    def forward(self, input):
        return F.conv2d(input, 2 * self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Shared(nn.Conv2d):
    """Of unknown type, but its own filter meets the images."""


@pytest.mark.parametrize("kind", [Standardised, Shared])
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("form", ["windows", "image by image", "grouped"])
def test_a_followed_filter_takes_every_form_of_the_convolution(monkeypatch, kind, groups, form):
    """Its module has no values, only a shape: once, a form read them, and large maps came out wrong in CoaT."""
    from anchored.fisher.rules import conv

    if groups > 1 and form == "windows":
        pytest.skip("windows are for one group")
    monkeypatch.setattr(conv, "cheapest_form", lambda *_: form)
    model = nn.Sequential(kind(8, 8, 3, padding=1, groups=groups), nn.Tanh())
    assert_native(model, random(IMAGES, 2, 8, 5, 5))
