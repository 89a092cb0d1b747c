"""What a backend cannot do it says by name: every sentence that a user can read."""

import re

import pytest
import torch
import torch.nn.functional as F
from fisher_cases import CASES, assert_equal_per_tensor, random, randomised, vit
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


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((6,), 0.5))
        self.fc = Odd(6, 2)

    def forward(self, x):
        return self.fc(x * self.gamma)


def test_all_parameters_without_a_rule_are_listed():
    assert refused(UncoveredParameters, Bare()) == (
        "no exact batched rule for 3 of 3 parameters: "
        "gamma (no rule for Bare); fc.weight (no rule for Odd); fc.bias (no rule for Odd).\n"
        '  backend="loop" is exact for any model.'
    )


def test_auto_takes_the_loop_and_says_why():
    model, batch = randomised(Bare()), random(4, 6)
    fisher = diagonal_fisher(model, [batch], sums, dtype=torch.float64)
    assert fisher.backend == "loop"
    assert fisher.reason.startswith("no exact batched rule for 3 of 3 parameters: gamma (no rule for Bare)")
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


def test_a_weight_norm_is_no_plain_linear():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 2)))
    assert "no rule for ParametrizedLinear" in refused(UncoveredParameters, model)


def test_a_parameter_that_the_rule_does_not_know():
    model = nn.Linear(6, 2)
    model.register_parameter("gate", nn.Parameter(torch.ones(2)))
    assert "1 of 3 parameters: gate (not in the rule for Linear)." in refused(UncoveredParameters, model)


def test_an_inplace_layer_scale_has_no_rule():
    model = vit(init_values=0.1).eval()
    model.blocks[1].ls2.inplace = True
    text = refused(UncoveredParameters, model, random(2, 3, 16, 16).float())
    assert "1 of 34 parameters: blocks.1.ls2.gamma (LayerScale: it scales its input in place)." in text


def test_a_vit_without_position_embedding_takes_the_loop():
    model = vit(pos_embed="none").eval()
    assert "cls_token (VisionTransformer: it has no absolute position embedding)" in refused(
        UncoveredParameters, model, random(2, 3, 16, 16).float()
    )


def test_shared_parameters_are_named():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    assert "0.weight (shared with 2.weight)" in refused(UncoveredParameters, model)
    model = randomised(model)
    exact = diagonal_fisher(model, [random(4, 6)], sums, dtype=torch.float64)
    assert exact.backend == "loop"


def test_a_layer_called_twice_is_no_sharing():
    """One module, two calls: its pairs are joined and squared once."""
    layer = randomised(nn.Linear(6, 6))

    def twice(model, batch):
        return model(model(batch).tanh()).square().sum(1)

    batch = random(4, 6)
    expected = diagonal_fisher(layer, [batch], twice, backend="loop", dtype=torch.float64)
    assert_equal_per_tensor(diagonal_fisher(layer, [batch], twice, backend="hooks", dtype=torch.float64), expected)


class Borrowing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return F.linear(self.first(x).tanh(), self.second.weight) + self.second(x)


def test_a_weight_used_outside_its_layer_is_found():
    """The layer's own call has a rule; the borrowed use would be lost without a sign."""
    assert refused(UncoveredParameters, Borrowing()) == (
        "used outside its layer: second.weight; a rule sees only what a layer does when it is called.\n"
        '  backend="loop" is exact for any model.'
    )
    model, batch = randomised(Borrowing()), random(4, 6)
    fisher = diagonal_fisher(model, [batch], sums, dtype=torch.float64)
    assert (fisher.backend, fisher.count) == ("loop", 4)
    assert fisher.reason.startswith("used outside its layer: second.weight")
    assert_equal_per_tensor(fisher, diagonal_fisher(model, [batch], sums, backend="loop", dtype=torch.float64))


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
