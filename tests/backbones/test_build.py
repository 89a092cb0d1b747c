"""Architectures: sizes, stages, seeds, and names that timm does not know."""

import pytest
import torch
from torch import nn

from anchored.backbones.build import build, freeze_batch_norm, seeded, stage_parameters
from anchored.backbones.features import feature_width, features, to_input
from anchored.errors import ConfigError, EnvironmentFailure
from anchored.plan.config import DinoLoss

RESNET = {"family": "tiny-resnet", "layers": [1, 1, 1, 1], "channels": [16, 32, 48, 64]}
VIT = {"family": "tiny-vit", "image": 20, "patch": 4, "width": 16, "depth": 3, "heads": 2}
TIMM = {"family": "timm", "name": "test_resnet", "image": None}
CASES = {"resnet": RESNET, "vit": VIT, "timm": TIMM, "deep": RESNET | {"layers": [2, 1, 1, 1]}}


def test_tiny_resnet_has_the_counted_parameters():
    """133,376: a stem of 64 channels; blocks of 2 convolutions and 2 norms, with a 1x1 shortcut and its norm."""
    count = 3 * 64 * 9 + 2 * 64
    for before, after in ((64, 16), (16, 32), (32, 48), (48, 64)):
        count += before * after * 9 + after * after * 9 + 4 * after + before * after + 2 * after
    assert count == 133_376
    assert sum(parameter.numel() for parameter in build(RESNET).parameters()) == count


@pytest.mark.parametrize("case", CASES)
def test_backbone_maps_images_to_features(case):
    """Heads and probes size themselves by `feature_width`."""
    model = build(CASES[case]).eval()
    images = torch.randn(2, 3, 20, 20) if case != "timm" else torch.randn(2, 3, 64, 64)
    assert model(images).shape == (2, feature_width(model))


@pytest.mark.parametrize("case", CASES)
def test_stages_partition_the_parameters(case):
    """A parameter in no stage would train in a frozen network; one in two stages hides a wrong order."""
    model = build(CASES[case])
    names = [name for stage in stage_parameters(model) for name in stage]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def test_stages_run_from_input_to_output():
    """`freeze: 1` has to mean the stem and the first stage, not the last."""
    stages = stage_parameters(build(RESNET))
    assert len(stages) == 5
    assert set(stages[0]) == {"conv1.weight", "bn1.weight", "bn1.bias"}
    for number in range(1, 5):
        assert all(name.startswith(f"layer{number}.") for name in stages[number])
    blocks = stage_parameters(build(VIT))
    assert len(blocks) == 4
    assert {name.split(".")[0] for name in blocks[0]} == {"cls_token", "pos_embed", "patch_embed"}
    assert all(name.startswith("blocks.1.") for name in blocks[2])
    assert {"norm.weight", "norm.bias"} <= set(blocks[3])


@pytest.mark.parametrize("case", ["resnet", "vit"])
def test_weights_depend_on_the_seed_only(case):
    """A backbone built after another must be the one that was built alone."""
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    first = seeded(CASES[case], 5).state_dict()
    assert torch.equal(torch.rand(3), expected), "the global generator was moved"
    torch.rand(7)
    second, other = seeded(CASES[case], 5).state_dict(), seeded(CASES[case], 6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_frozen_batch_norm_keeps_its_statistics():
    """In train mode one biased batch moves the statistics of pre-training."""
    model = build(RESNET).train()
    images = torch.randn(8, 3, 20, 20) + 3
    before = {name: value.clone() for name, value in model.named_buffers()}
    freeze_batch_norm(model)
    model(images)
    assert all(torch.equal(before[name], value) for name, value in model.named_buffers())
    assert model.training
    model.train()
    model(images)
    assert not torch.equal(before["bn1.running_mean"], model.bn1.running_mean)


def test_features_are_those_of_evaluation_mode():
    """Probes must not depend on how images fall into batches, nor change the mode of a model in training."""
    model = build(RESNET).train()
    images = torch.randn(7, 3, 20, 20)
    found = features(model, images, batch=3)
    assert model.training
    with torch.no_grad():
        expected = model.eval()(images)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-6)


def test_input_is_normalised_channel_by_channel():
    """(pixel / 255 - mean) / std, with channels where the network expects them."""
    pixels = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3).numpy()
    entry = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 1.0, 2.0]}
    found = to_input(pixels, entry, torch.device("cpu"))
    assert found.shape == (2, 3, 4, 4)
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - entry["mean"][channel]) / entry["std"][channel]
        torch.testing.assert_close(found[:, channel], torch.from_numpy(expected).float())


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnett18", "resnet18"), ("vit_base_patch16_224.dinno", "vit_base_patch16_224.dino"), ("vit_tiny_patch16", "vit_tiny_")],
)
def test_unknown_timm_name_names_near_ones(name, near):
    """timm has 1,600 names; its own error names none of them, and a wrong tag was a traceback."""
    with pytest.raises(ConfigError) as caught:
        build({"family": "timm", "name": name, "image": None})
    assert f"timm has no model '{name}'" in caught.value.message
    assert near in caught.value.hint


def test_image_size_for_a_model_without_one():
    """Convolutional networks take any size, so timm's constructor knows no `img_size`: once a TypeError."""
    with pytest.raises(ConfigError, match="test_resnet is not built for an image size") as caught:
        build(TIMM | {"image": 64})
    assert caught.value.hint == "leave architecture.image out."


def test_timm_weights_without_a_network(monkeypatch):
    """A cluster node without internet: exit 5 and what to do, not a traceback out of an HTTP client."""
    import timm

    from anchored.backbones.build import with_timm_weights

    def offline(*_, **__):
        raise FileNotFoundError("cannot reach the hub\nsecond line")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(EnvironmentFailure, match="weights of timm's test_resnet cannot be fetched") as caught:
        with_timm_weights(TIMM)
    assert caught.value.message.endswith("cannot reach the hub")
    assert "weights.checkpoint" in caught.value.hint


def test_head_is_seeded_and_has_unit_prototypes():
    """DINO's cosines need both sides at unit norm; BatchNorm stands in the hidden layers."""
    from anchored.backbones.heads import dino_head

    settings = DinoLoss(hidden=16, bottleneck=8, prototypes=5).model_dump()
    head, same = dino_head(12, settings, 3).eval(), dino_head(12, settings, 3).eval()
    inputs = torch.randn(6, 12)
    bottleneck, logits = head(inputs)
    assert torch.equal(logits, same(inputs).logits)
    torch.testing.assert_close(bottleneck.norm(dim=-1), torch.ones(6))
    expected = torch.stack([nn.functional.cosine_similarity(bottleneck, row[None]) for row in head.prototypes], dim=1)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    assert sum(isinstance(module, nn.BatchNorm1d) for module in head.modules()) == 2
