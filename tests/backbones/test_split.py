"""A cut backbone is the backbone."""

import pytest
import torch
from torch import nn

from anchored.backbones.build import build, stage_parameters
from anchored.backbones.split import split
from anchored.errors import ConfigError

VIT = {"family": "tiny-vit", "image": 20, "patch": 4, "width": 32, "depth": 3, "heads": 2}
RESNET = {"family": "tiny-resnet", "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
DINOV2 = {"family": "timm", "name": "vit_small_patch14_dinov2", "image": 28}


@pytest.mark.parametrize(("architecture", "stages"), [(VIT, 0), (VIT, 2), (RESNET, 0), (RESNET, 1), (RESNET, 3), (DINOV2, 8)])
def test_tail_after_stem_is_the_whole(architecture, stages):
    """The forward passes are written down a second time: they have to stay those of the installed timm."""
    torch.manual_seed(0)
    model = build(architecture).eval()
    images = torch.randn(2, 3, architecture.get("image", 20), architecture.get("image", 20))
    stem, tail = split(model, stages)
    with torch.no_grad():
        torch.testing.assert_close(tail(stem(images)), model(images), rtol=0, atol=0)


@pytest.mark.parametrize("architecture", [VIT, RESNET])
def test_stem_uses_just_the_stages_that_freeze_fixes(architecture):
    """Two countings of stages would train a stage whose activations are old."""
    model = build(architecture).eval()
    stem, tail = split(model, 2)
    fixed = {name for group in stage_parameters(model)[:3] for name in group}
    images = torch.randn(1, 3, 20, 20)
    for part, used in ((lambda: stem(images), fixed), (lambda: tail(stem(images).detach()), None)):
        model.zero_grad()
        part().sum().backward()
        touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert touched == (used if used is not None else {name for name, _ in model.named_parameters()} - fixed)


def test_other_architectures_are_refused():
    with pytest.raises(ConfigError, match="cannot cut a Linear"):
        split(nn.Linear(2, 2), 1)
