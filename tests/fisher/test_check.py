"""`anchored fim-check`: the table, the refusals by name, and the exit codes."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from anchored.cli import app
from anchored.errors import ConfigError, NumericalError
from anchored.fisher import check
from anchored.fisher.check import Check, build, check_models, check_table, randomised, relative_errors, require_exact

runner = CliRunner()


class Written(nn.Module):
    """Writes a parameter into rows of images, which has no rule; and has a head that its features do not use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token, self.head = nn.Linear(3, 4), nn.Parameter(torch.zeros(4)), nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x.mean((2, 3)))[:, None].repeat(1, 2, 1)
        x[:, 0] = self.token
        return x.tanh().flatten(1)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "build", lambda name: (Written(), 8))


def test_exact_models_have_exit_code_0():
    result = runner.invoke(app, ["fim-check", "test_vit", "test_convnext", "--images", "2"])
    assert result.exit_code == 0, result.output
    head, _, vit, convnext = result.output.splitlines()
    assert head.split("  ")[0] == "family/model"
    assert vit.split()[:4] == ["vision_transformer/test_vit", "64", "hooks", "78/78"]
    assert vit.split()[-1] == convnext.split()[-1] == "exact"
    assert float(vit.split()[4]) < 1e-9


def test_unknown_models_have_exit_code_2_and_a_suggestion():
    result = runner.invoke(app, ["fim-check", "resnet81"])
    assert result.exit_code == 2
    assert "timm has no model 'resnet81'.\n  did you mean resnet" in result.stderr


def test_unknown_fallbacks_have_exit_code_2():
    result = runner.invoke(app, ["fim-check", "test_vit", "--fallback", "vmap"])
    assert result.exit_code == 2
    assert "there is no fallback 'vmap'." in result.stderr


@pytest.mark.usefixtures("written")
def test_uncovered_parameters_are_named_and_have_exit_code_4():
    result = runner.invoke(app, ["fim-check", "test_vit"])
    assert result.exit_code == 4
    assert "refused" in result.stdout
    assert "test_vit: no exact batched rule for 1 of 3 parameters: token (__setitem__)." in result.stdout
    assert "test_vit: not used by its features, frozen: head.weight, head.bias" in result.stdout
    assert "the batched Fisher is not exact for test_vit (refused)." in result.stderr


@pytest.mark.usefixtures("written")
def test_the_fallback_measures_the_whole_model_by_the_loop():
    result = runner.invoke(app, ["fim-check", "test_vit", "--fallback", "loop"])
    assert result.exit_code == 0, result.output
    assert "loop (asked for)" in result.stdout
    assert "3/3" in result.stdout


def test_a_miss_names_the_tensor_and_has_exit_code_4(monkeypatch: pytest.MonkeyPatch):
    """Wrong by one part in a million: below what the first batch notices in fp32, far above rounding in float64."""
    from anchored.fisher.rules import norm

    right = norm.add_vector_squares
    monkeypatch.setattr(norm, "add_vector_squares", lambda acc, v: right(acc, v * (1 + 2e-8)))
    result = runner.invoke(app, ["fim-check", "test_vit", "--images", "2"])
    assert result.exit_code == 4
    assert "MISS" in result.stdout
    assert "norm" in result.stdout.splitlines()[2]


def test_a_model_without_a_head_takes_its_smallest_size():
    model, size = build("test_vit")
    assert size == 64
    assert isinstance(model.head, nn.Identity)


def test_random_parameters_leave_no_branch_at_zero():
    model = randomised(build("test_convnext")[0])
    assert all(bool((parameter != 0).all()) for parameter in model.parameters())
    assert all(parameter.dtype == torch.float64 for parameter in model.parameters())
    assert not model.training


def test_a_gradient_of_rounding_noise_is_compared_with_the_largest():
    expected = {"weight": torch.tensor([1.0, 4.0]), "key bias": torch.tensor([1e-30, 2e-31])}
    actual = {"weight": torch.tensor([1.0, 2.0]), "key bias": torch.tensor([3e-30, 0.0])}
    expected["small"] = actual["small"] = torch.tensor([1e-40, 0.0])
    errors, silent = relative_errors(actual, expected)
    assert silent == ["key bias"]
    assert errors["weight"] == pytest.approx(0.5)
    assert errors["key bias"] < 1e-11


def test_images_have_to_be_there():
    with pytest.raises(ConfigError, match="0 images cannot be measured"):
        check_models(["test_vit"], images=0)


def test_verdicts():
    exact, missed = Check("a", "f", 64, 3, 3, "hooks", 1e-12, "w"), Check("b", "f", 64, 3, 3, "hooks", 1e-3, "w")
    refused = Check("c", "f", 64, 3, 2, "hooks", refusal="no rule")
    assert [check.verdict for check in (exact, missed, refused)] == ["exact", "MISS", "refused"]
    require_exact([exact])
    with pytest.raises(NumericalError, match=r"not exact for b \(MISS\), c \(refused\)"):
        require_exact([exact, missed, refused])
    assert "c: no rule" in check_table([refused])
