"""A Fisher measured in one layout and loaded into a model of another: same entries, right names, right refusals."""

from pathlib import Path

import pytest
import torch
from fisher_cases import random
from test_heads import Wrapped
from test_names import LAYOUT, parameters, timm_vit, torchvision_vit, xcit
from torch import nn

from anchored.errors import ConfigError
from anchored.finetune import Anchor
from anchored.fisher import backbone_digest, condition, diagonal_fisher, load_fisher, save_fisher
from anchored.fisher.errors import ForeignFisher, MissingFisher, ShapeMismatch
from anchored.fisher.names import from_timm, to_timm


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Path, nn.Module]:
    """A timm ViT without a head, and its Fisher."""
    torch.manual_seed(0)
    model = timm_vit().eval()
    model.reset_classifier(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    path = tmp_path_factory.mktemp("fim") / "fim.safetensors"
    fisher = diagonal_fisher(model, [random(3, 3, 32, 32).float()], lambda m, x: m(x).square().sum(1))
    save_fisher(path, fisher, metadata={"backbone_digest": backbone_digest(parameters(model))})
    return path, model


def in_torchvision(backbone: nn.Module) -> nn.Module:
    model = torchvision_vit().eval()
    model.load_state_dict(from_timm(parameters(backbone), LAYOUT["torchvision-vit"]), strict=False)
    return model


def test_the_fisher_of_a_timm_vit_in_torchvision_is_what_would_be_measured_there(measured):
    """The oracle: measure again in the other layout. A wrong order of q, k, v would pass every check of names and shapes."""
    path, backbone = measured
    model = in_torchvision(backbone)
    found = load_fisher(path, model)
    assert found.free == ("heads.head.weight", "heads.head.bias")
    assert found.conversion == "timm -> torchvision-vit"
    model.heads = nn.Identity()
    again = diagonal_fisher(model, [random(3, 3, 32, 32).float()], lambda m, x: m(x).square().sum(1), backend="loop")
    assert found.keys() == again.keys()
    for name in again:
        torch.testing.assert_close(found[name], again[name], rtol=1e-3, atol=1e-5 * float(again[name].max()))


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: Wrapped(m, nn.Linear(16, 2))])
@pytest.mark.parametrize("convert", [lambda m: m, in_torchvision])
def test_anchoring_a_model_with_a_new_head(measured, wrap, convert):
    """Raw and conditioned: what the head is must not get lost between the two calls."""
    path, backbone = measured
    copy = timm_vit().eval()
    copy.load_state_dict(parameters(backbone), strict=False)
    model = wrap(convert(copy))
    fisher = load_fisher(path, model)
    for weights in (fisher, condition(fisher, "normalise")):
        anchor = Anchor(model, weights, 2.0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01
        expected = sum(0.01**2 * float(value.double().sum()) for value in weights.values())
        assert anchor.penalty() == pytest.approx(expected, rel=1e-3)
        anchor.add_gradient()
        assert {name for name, p in model.named_parameters() if p.grad is None} == set(fisher.free)
        model.zero_grad()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.01


def test_l2_sp_leaves_the_same_head_alone():
    """Arms are compared: the anchor of one must not hold parameters that the other's does not."""
    model = timm_vit()
    anchor = Anchor(model, 1.0, 1.0)
    with torch.no_grad():
        model.head.weight += 1
    assert anchor.penalty() == 0
    assert Anchor(model, 1.0, 1.0, head=[]).displacement() == 0
    plain = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    anchor = Anchor(plain, 1.0, 1.0, head="1")
    with torch.no_grad():
        plain[1].weight += 1
    assert anchor.penalty() == 0
    with pytest.raises(ConfigError, match="the model has no part '2'"):
        Anchor(plain, 1.0, 1.0, head="2")


def test_a_fine_tuned_model_is_refused_in_every_layout(measured):
    path, backbone = measured
    model = in_torchvision(backbone)
    with torch.no_grad():
        model.encoder.ln.bias[3] += 1e-6
    with pytest.raises(ForeignFisher, match="was measured on backbone"):
        load_fisher(path, model)


def test_a_backbone_parameter_without_an_entry_is_refused_in_every_layout(measured):
    """Strict for the backbone although the head is free."""
    path, backbone = measured
    model = in_torchvision(backbone)
    model.encoder.extra = nn.Parameter(torch.ones(1))
    with pytest.raises(MissingFisher, match=r'no Fisher for encoder\.extra\.\n  measure .* or name the new ones: head="'):
        load_fisher(path, model)
    with pytest.raises(MissingFisher, match=r"no Fisher for heads\.head\.weight, heads\.head\.bias, encoder\.extra|encoder\.extra"):
        load_fisher(path, model, head=[])
    assert load_fisher(path, model, head=["heads", "encoder.extra"]).free[-1] == "heads.head.bias"


def test_a_model_of_another_depth_names_the_first_missing_and_the_nearest(measured):
    path, backbone = measured
    model = in_torchvision(backbone)
    del model.encoder.layers.encoder_layer_1
    sentence = (
        r"covers blocks\.1\.\S+, blocks\.1\.\S+, .* and 7 more, which the model lacks \(12 of 30 entries, in every layout known: "
        r"timm, torchvision-vit, torchvision-vit-0\.12, xcit\)\.\n  the nearest name there is encoder\.layers\.encoder_layer_0\."
    )
    with pytest.raises(ForeignFisher, match=sentence):
        load_fisher(path, model)


def test_shapes_are_compared_after_the_conversion(measured):
    path, backbone = measured
    model = in_torchvision(backbone)
    model.encoder.pos_embedding = nn.Parameter(torch.ones(1, 10, 16))
    with pytest.raises(ShapeMismatch, match=r"the Fisher of encoder\.pos_embedding has shape \(1, 5, 16\), the parameter \(1, 10"):
        load_fisher(path, model)


def test_of_student_and_teacher_the_one_of_the_digest_is_taken(measured):
    """A checkpoint of DINO holds both; they differ, and only one is the anchor."""
    path, backbone = measured
    model = nn.Module()
    model.student, model.teacher = timm_vit(), timm_vit().requires_grad_(False)
    model.student.load_state_dict(parameters(backbone), strict=False)
    model.teacher.load_state_dict(parameters(backbone), strict=False)
    found = load_fisher(path, model)
    assert all(name.startswith("student.") for name in found), "the trained one, where both have the digest"
    model.requires_grad_(True)
    with torch.no_grad():
        model.teacher.norm.bias += 1
    assert all(name.startswith("student.") for name in load_fisher(path, model))
    with torch.no_grad():
        model.teacher.load_state_dict(parameters(backbone), strict=False)
        model.student.norm.bias += 1
    assert all(name.startswith("teacher.") for name in load_fisher(path, model))


def test_xcit_of_its_authors(tmp_path):
    """One tensor there, three here: the digest is over the three."""
    model = xcit()
    fisher = {name: torch.rand_like(value) for name, value in parameters(model).items() if not name.startswith("head.")}
    stack = from_timm(parameters(model), LAYOUT["xcit"])
    original = nn.Module()
    for name, value in stack.items():
        *path, leaf = name.split(".")
        module = original
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, nn.Parameter(value.clone()))
    from anchored.fisher import DiagonalFisher

    digest = backbone_digest({name: parameters(model)[name] for name in fisher})
    save_fisher(tmp_path / "f", DiagonalFisher(fisher, 1, "loop"), metadata={"backbone_digest": digest})
    found = load_fisher(tmp_path / "f", original, head="head")
    assert found["cls_attn_blocks.0.attn.qkv.bias"].shape == (48,)
    back = to_timm(found, LAYOUT["xcit"])
    assert back.keys() == fisher.keys()
    assert all(torch.equal(back[name], fisher[name]) for name in fisher)
    with pytest.raises(MissingFisher, match=r"no Fisher for head\.weight, head\.bias"):
        load_fisher(tmp_path / "f", original)
