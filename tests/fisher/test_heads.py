"""Which parameters may go without a Fisher: a new head, and nothing that belongs to the backbone."""

import pytest
import torch
from test_names import resnets, timm_vit, torchvision_vit, xcit
from torch import nn

from anchored.errors import ConfigError
from anchored.fisher.heads import head_parameters


class Wrapped(nn.Module):
    """As DINO's MultiCropWrapper, and as most people write their own classifier."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head


def covered(model: nn.Module, prefix: str = "") -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefix)}


@pytest.mark.parametrize(
    ("build", "part"),
    [
        (timm_vit, "head"), (lambda: timm_vit(global_pool="avg"), "head"), (xcit, "head"), (lambda: resnets()[1], "fc"),
        (torchvision_vit, "heads.head"), (lambda: resnets()[0], "fc"),
    ],
)  # fmt: skip
def test_libraries_point_at_their_classifier(build, part):
    """timm by `get_classifier()`, torchvision by the table; never the norm before it (`fc_norm`)."""
    model = build()
    assert head_parameters(model, ()) == {f"{part}.weight", f"{part}.bias"}
    wrapped = Wrapped(build(), nn.Identity())
    assert head_parameters(wrapped, ()) == {f"backbone.{part}.weight", f"backbone.{part}.bias"}


def test_a_head_of_two_parts():
    """Distilled transformers have two classifiers."""
    import timm

    model = timm.create_model("deit_tiny_distilled_patch16_224", depth=1, embed_dim=12, num_classes=2)
    assert {name.split(".")[0] for name in head_parameters(model, ())} == {"head", "head_dist"}


def test_what_stands_beside_the_backbone_is_new():
    model = Wrapped(timm_vit(), nn.Linear(3, 2))
    inside = {name for name in covered(model, "backbone.") if ".head." not in name}
    assert head_parameters(model, inside) == {"backbone.head.weight", "backbone.head.bias", "head.weight", "head.bias"}


def test_a_backbone_that_lacks_an_entry_is_not_new():
    """The strictness is the point: a forgotten block must not float freely."""
    model = timm_vit()
    partly = {name for name in covered(model) if not name.startswith(("blocks.1.", "head."))}
    assert head_parameters(model, partly) == {"head.weight", "head.bias"}
    anonymous = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert head_parameters(anonymous, {"0.weight", "0.bias"}) == set()


def test_a_classifier_that_was_measured_is_anchored():
    """Fine-tuning from a supervised network with its own classes."""
    assert head_parameters(timm_vit(), covered(timm_vit())) == set()


def test_heads_by_name():
    model = Wrapped(nn.Linear(2, 2), nn.Linear(2, 2))
    model.scale = nn.Parameter(torch.ones(1))
    assert head_parameters(model, covered(model), "head") == {"head.weight", "head.bias"}
    assert head_parameters(model, (), ["head", "scale"]) == {"head.weight", "head.bias", "scale"}
    assert head_parameters(timm_vit(), (), []) == set()
    model.head = nn.Identity()
    assert head_parameters(model, (), "head") == set(), "a head that was removed is not a mistake"
    with pytest.raises(ConfigError, match=r"the model has no part 'heat'\.\n  did you mean 'head'\?"):
        head_parameters(model, (), "heat")
