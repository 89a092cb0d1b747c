"""What a backend cannot do it says by name: every sentence that a user can read."""

import re

import pytest
import torch
import torch.nn.functional as F
from fisher_cases import CASES, assert_equal_per_tensor, random, randomised
from timm.layers import DropPath, LayerNorm2d
from torch import nn

from anchored.errors import AnchoredError, ConfigError
from anchored.fisher import diagonal_fisher
from anchored.fisher.errors import ChangedInPlace, CoupledImages, TrainingMode, UncoveredParameters
from anchored.fisher.rules import find

IMAGES = torch.ones(4, 6)


def sums(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).flatten(1).square().sum(1)


def refused(error: type[AnchoredError], model: nn.Module, batch=None, loss=sums, backend="hooks") -> str:
    with pytest.raises(error) as caught:
        diagonal_fisher(model, [random(4, 6).float() if batch is None else batch], loss, backend=backend)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return str(caught.value)


class Odd(nn.Linear):
    """A subclass may compute anything."""

    def forward(self, input):
        return super().forward(input) ** 2


class Written(nn.Module):
    """Writes a parameter into rows of images: no rule knows what becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((6,), 0.5))
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        x = torch.stack([x, x * 2], dim=1)
        x[:, 0] = self.token
        return self.fc(x).tanh().sum(1)


def test_all_parameters_without_a_rule_are_listed():
    assert refused(UncoveredParameters, Written()) == (
        "no exact batched rule for 1 of 3 parameters: token (__setitem__).\n"
        '  backend="loop" is exact for any model.'
    )


def test_auto_takes_the_loop_and_says_why():
    model, batch = randomised(Written()), random(4, 6)
    fisher = diagonal_fisher(model, [batch], sums, dtype=torch.float64)
    assert fisher.backend == "loop"
    assert fisher.reason.startswith("no exact batched rule for 1 of 3 parameters: token (__setitem__)")
    assert_equal_per_tensor(fisher, diagonal_fisher(model, [batch], sums, backend="loop", dtype=torch.float64))
    covered = diagonal_fisher(nn.Linear(6, 2), [IMAGES], sums)
    assert (covered.backend, covered.reason) == ("hooks", "every parameter has a rule")


def test_rules_are_found_by_exact_type():
    """timm's LayerNorm2d is an nn.LayerNorm, and normalises another dimension."""
    assert isinstance(LayerNorm2d(4), nn.LayerNorm)
    assert find(LayerNorm2d(4)) is not find(nn.LayerNorm(4))
    assert find(Odd(2, 2)) is None


def test_unknown_backends():
    with pytest.raises(ConfigError, match="there is no Fisher backend 'vmap'"):
        diagonal_fisher(nn.Linear(6, 2), [IMAGES], sums, backend="vmap")


def test_a_model_without_gradients():
    with pytest.raises(UncoveredParameters, match=r"no parameter of the model requires a gradient\.\n  call requires_grad_"):
        diagonal_fisher(nn.Linear(6, 2).requires_grad_(False), [IMAGES], sums)


class Hidden(torch.autograd.Function):
    """What Python's torch functions do not see: custom and compiled code."""

    @staticmethod
    def forward(ctx, x, gamma):
        ctx.save_for_backward(x, gamma)
        return x * gamma

    @staticmethod
    def backward(ctx, g):
        x, gamma = ctx.saved_tensors
        return g * gamma, (g * x).sum(0)


class Hiding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gamma, self.fc = nn.Linear(6, 6), nn.Parameter(torch.full((6,), 0.5)), nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(Hidden.apply(self.first(x), self.gamma) + self.gamma)


def test_a_use_that_nothing_sees_is_found_by_autograd():
    """Every gradient of the first image is compared: gamma has one use that is followed, and one that is not."""
    text = refused(UncoveredParameters, Hiding())
    assert "the rules and autograd disagree on the first image for 1 of 5 parameters: gamma (relative error " in text
    model, batch = randomised(Hiding()), random(4, 6)
    fisher = diagonal_fisher(model, [batch], sums, dtype=torch.float64)
    assert fisher.backend == "loop"


def test_a_lost_gradient_is_found_in_16_bit():
    class Lost(nn.Linear):
        def forward(self, x):
            return Hidden.apply(super().forward(x), self.gamma)

    model = Lost(6, 2)
    model.gamma = nn.Parameter(torch.full((2,), 0.5))
    model = nn.Sequential(nn.Linear(6, 6), model)

    def loss(network, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network(batch)
        return out.float().square().sum(1) + 0.0 * network[1].gamma.sum()

    assert "1.gamma (relative error 1.0e+00)" in refused(UncoveredParameters, model, loss=loss)


def test_a_wrong_rule_is_found_by_autograd(monkeypatch):
    """Such as one for a layer that another version of its library computes differently."""
    from anchored.fisher.rules import linear, registry

    def doubled(module, calls, images, sums):
        linear.linear(module, [call._replace(g=2 * call.g) for call in calls], images, sums)

    monkeypatch.setitem(registry._by_type, Odd, registry.Rule(("weight", "bias"), doubled))
    text = refused(UncoveredParameters, nn.Sequential(nn.Linear(6, 6), Odd(6, 2)))
    assert "for 2 of 4 parameters: 1.weight (relative error" in text


def test_a_recurrent_network_has_no_rule():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(6, 2, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0][:, -1]

    text = refused(UncoveredParameters, Last(), random(4, 3, 6).float())
    assert "4 of 4 parameters: rnn.bias_hh_l0 (lstm); rnn.bias_ih_l0 (lstm)" in text


def test_a_layer_called_twice_is_no_sharing():
    """One module, two calls: its pairs are joined and squared once."""
    layer = randomised(nn.Linear(6, 6))

    def twice(model, batch):
        return model(model(batch).tanh()).square().sum(1)

    batch = random(4, 6)
    expected = diagonal_fisher(layer, [batch], twice, backend="loop", dtype=torch.float64)
    assert_equal_per_tensor(diagonal_fisher(layer, [batch], twice, backend="hooks", dtype=torch.float64), expected)


def test_looking_at_a_weight_is_no_use():
    def loss(model, batch):
        scale = model[0].weight.detach().abs().mean().to(model[0].weight.dtype) * model[0].weight.shape[0]
        return model(batch).square().sum(1) * scale

    assert diagonal_fisher(nn.Sequential(nn.Linear(6, 2)), [IMAGES], loss, backend="hooks").count == 4


def test_a_layer_that_the_loss_never_uses_is_named():
    model = nn.ModuleDict({"body": nn.Linear(6, 3), "head": nn.Linear(3, 2)})

    def loss(m, x):
        return m["body"](x).square().sum(1)

    assert refused(UncoveredParameters, model, loss=loss) == (
        "never used by the loss: head.weight, head.bias.\n"
        '  freeze these with requires_grad_(False), or take backend="loop", which gives them a Fisher of zero.'
    )
    fisher = diagonal_fisher(model, [IMAGES], loss)
    assert fisher.backend == "loop"
    assert not fisher["head.weight"].any()


class Overwriting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.stem(x)
        y = self.fc(x)
        x.add_(1.0)
        return y + x[:, :2]


def test_a_followed_input_changed_in_place_is_found():
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc = nn.Linear(6, 6), Odd(6, 2)

        def forward(self, x):
            x = self.stem(x)
            y = F.linear(x, self.fc.weight, self.fc.bias)
            x.add_(1.0)
            return y + x[:, :2]

    assert refused(ChangedInPlace, Changing()) == (
        "what fc.weight acts on was changed in place afterwards.\n"
        '  make that operation out of place, or take backend="loop".'
    )


def test_an_input_changed_in_place_is_found():
    """With frozen weights autograd neither keeps nor checks it: the result was wrong in silence."""
    assert refused(ChangedInPlace, Overwriting()) == (
        "the input of fc was changed in place after the layer had read it.\n"
        '  make that operation out of place, or take backend="loop".'
    )


def test_view_major_rows_are_found():
    """All first views, then all second views: reshaping to images would join views of different images."""
    model = CASES[1].model()

    def view_major(network, views):
        rows = views.transpose(0, 1).flatten(0, 1)
        return network(rows).unflatten(0, (2, len(views))).square().sum((0, 2))

    text = refused(CoupledImages, model, CASES[1].batch(), view_major)
    assert re.match(r"the loss of image 0 reaches rows of other images in [\w.]+\.\n  keep the rows of an image together", text)


@pytest.mark.parametrize("couple", ["batch norm in the head", "comparison of images"])
def test_losses_that_couple_images_are_found(couple):
    head = nn.BatchNorm1d(2).train()

    def loss(network, x):
        out = network(x)
        out = head(out) if couple == "batch norm in the head" else (out @ out.t()).softmax(-1)
        return out.square().sum(1)

    assert "the loss of image 0 reaches rows of other images in the model" in refused(CoupledImages, nn.Linear(6, 2), loss=loss)


def test_rows_that_images_do_not_divide():
    def loss(network, x):
        out = network(x)
        return torch.stack([out[:2].sum(), out[2:].sum(), out[3:].sum()])

    assert refused(CoupledImages, nn.Linear(6, 2), loss=loss) == (
        "the model saw 4 rows, which 3 images do not divide.\n"
        "  every image needs the same number of views in each call of the model."
    )


def test_images_that_require_gradients_are_refused():
    with pytest.raises(AnchoredError, match=r"the images of the batch require gradients\.\n  detach them\."):
        diagonal_fisher(nn.Linear(6, 2), [random(4, 6).float().requires_grad_()], sums, backend="hooks")


@pytest.mark.parametrize("backend", ["loop", "hooks", "auto"])
def test_batch_statistics_are_refused(backend):
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    text = refused(TrainingMode, model, backend=backend)
    assert text == (
        "batch statistics in 1 make the loss of an image depend on its batch; the Fisher is undefined.\n"
        "  call model.eval() first; a BatchNorm without running statistics cannot be measured."
    )
    model[1] = nn.BatchNorm1d(3, track_running_stats=False)
    assert refused(TrainingMode, model.eval(), backend=backend) == text


@pytest.mark.parametrize("layer", [nn.Dropout(0.1), DropPath(0.1)], ids=["Dropout", "DropPath"])
def test_dropout_is_refused(layer):
    model = nn.Sequential(nn.Linear(6, 3), layer)
    assert refused(TrainingMode, model) == (
        "dropout is on in 1; the Fisher would be that of a random network.\n  call model.eval() first."
    )
    assert diagonal_fisher(model.eval(), [IMAGES], sums).count == 4


def test_dropout_at_rate_zero_is_no_dropout():
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.0), DropPath(0.0)).train()
    assert diagonal_fisher(model, [IMAGES], sums).count == 4


def test_passes_between_batches_leave_no_trace():
    """A generator of batches may run the model itself, with gradients on."""
    model, batch = randomised(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))), random(4, 6)

    def batches():
        for part in batch.split(2):
            model(part)
            yield part

    expected = diagonal_fisher(model, [batch], sums, backend="loop", dtype=torch.float64)
    assert_equal_per_tensor(diagonal_fisher(model, batches(), sums, backend="hooks", dtype=torch.float64), expected)


def test_passes_between_batches_do_not_count_as_use():
    model = nn.ModuleDict({"body": nn.Linear(6, 3), "head": nn.Linear(3, 2)})

    def batches():
        model["head"](torch.ones(1, 3))
        yield IMAGES

    with pytest.raises(UncoveredParameters, match=r"never used by the loss: head\.weight, head\.bias\."):
        diagonal_fisher(model, batches(), lambda m, x: m["body"](x).square().sum(1), backend="hooks")


def test_a_stem_that_is_changed_in_place_right_away():
    """The first output starts the graph; as a leaf it could not be followed by an in-place activation."""
    model, batch = randomised(nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))), random(4, 6)
    expected = diagonal_fisher(model, [batch], sums, backend="loop", dtype=torch.float64)
    assert_equal_per_tensor(diagonal_fisher(model, [batch], sums, backend="hooks", dtype=torch.float64), expected)
