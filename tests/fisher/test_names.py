"""The tables of names against the libraries' own models, built here: same names, same shapes, same function."""

import pytest
import torch
from fisher_cases import random
from torch import nn

from anchored.compat import prepare_torchvision
from anchored.fisher.names import LAYOUTS, conversions, from_timm, misfit, prefixes, to_timm

prepare_torchvision()

LAYOUT = {layout.name: layout for layout in LAYOUTS}


def torchvision_vit() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=3)


def timm_vit(**options) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=32, patch_size=16, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2, num_classes=3, **options)


def resnets() -> tuple[nn.Module, nn.Module]:
    from timm.models.resnet import Bottleneck, ResNet
    from torchvision.models import resnet

    there = resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 1], num_classes=3)
    return there, ResNet(Bottleneck, (1, 2, 1, 1), num_classes=3)


def xcit() -> nn.Module:
    from timm.models.xcit import Xcit

    return Xcit(img_size=32, patch_size=16, embed_dim=16, depth=2, num_heads=2, cls_attn_layers=2, eta=1.0, num_classes=3)


def xcit_names() -> set[str]:
    """What facebookresearch/xcit calls the parameters of the network above."""
    names = {"cls_token", "norm.weight", "norm.bias", "head.weight", "head.bias"}
    names |= {f"patch_embed.proj.{i}.0.weight" for i in (0, 2, 4, 6)}
    names |= {f"patch_embed.proj.{i}.1.{leaf}" for i in (0, 2, 4, 6) for leaf in ("weight", "bias")}
    names |= {f"pos_embeder.token_projection.{leaf}" for leaf in ("weight", "bias")}
    both = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    own = (*both, "norm3", "local_mp.conv1", "local_mp.conv2", "local_mp.bn")
    for n in range(2):
        names |= {f"cls_attn_blocks.{n}.{part}.{leaf}" for part in both for leaf in ("weight", "bias")}
        names |= {f"cls_attn_blocks.{n}.gamma{i}" for i in (1, 2)}
        names |= {f"blocks.{n}.{part}.{leaf}" for part in own for leaf in ("weight", "bias")}
        names |= {f"blocks.{n}.gamma{i}" for i in (1, 2, 3)} | {f"blocks.{n}.attn.temperature"}
    return names


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def shapes(tensors) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_torchvision_vit_is_a_timm_vit():
    """Names and shapes could fit while heads or q, k, v are ordered otherwise: the outputs must agree, too."""
    torch.manual_seed(0)
    there, here = torchvision_vit().double().eval(), timm_vit().double().eval()
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.normal_(std=0.3)
    converted = to_timm(parameters(there), LAYOUT["torchvision-vit"])
    assert shapes(converted) == shapes(parameters(here))
    here.load_state_dict(converted)
    images = random(2, 3, 32, 32)
    torch.testing.assert_close(here(images), there(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", ["torchvision-vit", "torchvision-vit-0.12", "xcit"])
def test_there_and_back_again_changes_nothing(layout):
    """Bijective in both directions, tensors included."""
    here = parameters(xcit() if layout == "xcit" else timm_vit())
    there = from_timm(here, LAYOUT[layout])
    assert there.keys() != here.keys()
    assert same(to_timm(there, LAYOUT[layout]), here)
    assert same(from_timm(to_timm(there, LAYOUT[layout]), LAYOUT[layout]), there)


def test_names_of_todays_torchvision_vit_are_reached_from_timm():
    """from_timm must give the library's own names, not just some names that lead back."""
    assert shapes(from_timm(parameters(timm_vit()), LAYOUT["torchvision-vit"])) == shapes(parameters(torchvision_vit()))


def test_older_torchvision_called_the_two_layers_linear_1_and_linear_2():
    """Checkpoints of torchvision 0.12; its own loader renames them in the same way."""
    old = from_timm(parameters(timm_vit()), LAYOUT["torchvision-vit-0.12"])
    assert old["encoder.layers.encoder_layer_1.mlp.linear_2.weight"].shape == (16, 32)
    model = torchvision_vit()
    model.load_state_dict(old)
    assert same(parameters(model), from_timm(to_timm(old, LAYOUT["torchvision-vit-0.12"]), LAYOUT["torchvision-vit"]))


def test_resnets_have_the_same_names_in_timm_torchvision_and_dino():
    """Downsampling and bottlenecks included, which is why no table is needed; the DINO ResNet-50 is torchvision's without fc."""
    there, here = resnets()
    assert list(shapes(parameters(there)).items()) == list(shapes(parameters(here)).items())
    (way,) = conversions(parameters(here), parameters(there))
    assert way.text == ""


def test_xcit_stacks_q_k_and_v_of_its_class_attention():
    """timm splits them, since q is needed for the class token alone."""
    here = parameters(xcit())
    there = from_timm(here, LAYOUT["xcit"])
    assert there.keys() == xcit_names()
    stacked = there["cls_attn_blocks.1.attn.qkv.weight"]
    assert stacked.shape == (48, 16)
    assert torch.equal(stacked[16:32], here["cls_attn_blocks.1.attn.k.weight"])


def test_names_that_no_table_knows_stay_as_they_are():
    tensors = {"stem.weight": torch.ones(2), "encoder.layers.encoder_layer_x.ln_1.weight": torch.ones(2)}
    for layout in LAYOUTS:
        assert same(to_timm(tensors, layout), tensors)


def test_an_incomplete_stack_is_not_joined():
    """A frozen k leaves q and v without a partner: joining two of three would shift every entry."""
    tensors = {f"cls_attn_blocks.0.attn.{part}.weight": torch.ones(4, 4) for part in "qv"}
    assert same(from_timm(tensors, LAYOUT["xcit"]), tensors)


WRAPPED = ["", "module.", "backbone.", "module.backbone.", "student.module.backbone.", "teacher.", "model."]


@pytest.mark.parametrize("mine", WRAPPED)
@pytest.mark.parametrize("theirs", ["", "teacher.backbone."])
def test_wrappers_are_seen_through_on_both_sides(mine, theirs):
    """DDP calls the network `module`, MultiCropWrapper `backbone`, DINO's checkpoints `teacher` and `student`."""
    plain = parameters(timm_vit())
    fisher = {theirs + name: value for name, value in plain.items() if not name.startswith("head.")}
    spelt = from_timm(plain, LAYOUT["torchvision-vit"])
    model = {mine + name: value for name, value in spelt.items()}
    (way,) = conversions(fisher, model)
    assert way.text == f"timm{f', {theirs}*' if theirs else ''} -> torchvision-vit{f', {mine}*' if mine else ''}"
    back = way.to_model(fisher)
    assert back.keys() == {mine + name for name in spelt if not name.startswith("heads.")}
    assert all(torch.equal(back[name], model[name]) for name in back)
    assert all(torch.equal(value, fisher[name]) for name, value in way.to_fisher(model).items() if name in fisher)


def test_the_plain_way_comes_first():
    """A model that holds the names as they are and in a wrapper: the wrapper is the detour."""
    plain = {"a.weight": torch.ones(2)}
    ways = conversions(plain, {"module.a.weight": torch.ones(2), "a.weight": torch.ones(2)})
    assert [way.model[1] for way in ways] == ["", "module."]


def test_prefixes_are_chains_of_wrappers():
    names = ["module.backbone.conv1.weight", "module.head.weight", "backbonette.weight"]
    assert prefixes(names) == ["", "module.", "module.backbone."]


def test_a_network_that_fits_no_layout_names_what_is_missing_and_what_is_near():
    """One block more than the model has, in another library's spelling."""
    fisher = parameters(timm_vit())
    fisher["blocks.2.norm1.weight"] = torch.ones(16)
    model = {f"module.{name}": value for name, value in parameters(torchvision_vit()).items()}
    assert conversions(fisher, model) == []
    found = misfit(fisher, model)
    assert found.missing == ("blocks.2.norm1.weight",)
    assert found.nearest.startswith("module.encoder.layers.encoder_layer_")
    assert found.nearest.endswith(".ln_1.weight")
    assert found.entries == len(fisher)
