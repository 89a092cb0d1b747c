"""DINO's published heads give the published logits, and a plan that describes another head is told which keys to change."""

import pytest
import torch
from published import full_checkpoint, head_logits, resnet_head, vit_head

from anchored.backbones.build import seeded
from anchored.backbones.imports import import_weights
from anchored.errors import ConfigError, InputError
from anchored.plan.config import DinoLoss

VIT = {"family": "tiny-vit", "image": 20, "patch": 4, "width": 16, "depth": 2, "heads": 2}
OF_VIT = {"layers": 3, "hidden": 24, "batch_norm": False, "bottleneck": 8, "prototypes": 30, "normalised": True}
OF_RESNET = {"layers": 2, "hidden": 24, "batch_norm": True, "bottleneck": 8, "prototypes": 30, "normalised": False}
HEADS = {
    "vit": (vit_head, OF_VIT),
    "vit, parametrized": (lambda width, seed: vit_head(width, seed=seed, spelling="parametrized"), OF_VIT),
    "resnet": (resnet_head, OF_RESNET),
}


def entry(dino: dict) -> dict:
    return {
        "family": "theirs", "architecture": VIT, "anchor": "student", "mean": [0.5] * 3, "std": [0.25] * 3,
        "weights": {"checkpoint": "full.pth", "digest": None, "timm": False, "source": "theirs"},
        "head": {"from": "checkpoint", "dino": DinoLoss(**dino).model_dump()},
    }  # fmt: skip


def save(root, student_head, teacher_head, **more) -> None:
    states = [seeded(VIT, seed).state_dict() for seed in (1, 2)]
    torch.save(full_checkpoint(*states, student_head, teacher_head, **more), root / "full.pth")


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_the_published_ones(name, tmp_path):
    """A GELU too few, batch statistics, or prototypes normalised that should not be: a smooth, plausible, wrong loss."""
    make, dino = HEADS[name]
    states = {"student": make(16, seed=1), "teacher": make(16, seed=2)}
    save(tmp_path, *states.values())
    found = import_weights(entry(dino), tmp_path)
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    for which, state in states.items():
        with torch.no_grad():
            logits = found.heads[which].eval()(features).logits
        torch.testing.assert_close(logits, head_logits(state, features), rtol=1e-4, atol=1e-5)
    assert found.centre is None


def test_prototypes_whose_length_was_trained(tmp_path):
    """norm_last_layer=False: the lengths are part of the function, so the plan has to say that outputs are no cosines."""
    state = vit_head(16)
    state["last_layer.weight_g"] = torch.linspace(0.5, 2, 30)[:, None]
    save(tmp_path, state, state)
    with pytest.raises(ConfigError) as caught:
        import_weights(entry(OF_VIT), tmp_path)
    assert caught.value.hint == "set backbones.theirs.head.dino to {normalised: false}."
    found = import_weights(entry(OF_VIT | {"normalised": False}), tmp_path)
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = found.heads["student"].eval()(features).logits
    torch.testing.assert_close(logits, head_logits(state, features), rtol=1e-4, atol=1e-5)


def test_sizes_of_the_plan_are_those_of_the_file(tmp_path):
    """The ResNet-50's head differs from the default of DINO's own code in four ways; the message is what to write."""
    save(tmp_path, resnet_head(16), resnet_head(16))
    with pytest.raises(ConfigError) as caught:
        import_weights(entry(OF_VIT | {"hidden": 99}), tmp_path)
    assert caught.value.message.endswith(
        "the student's head has layers 2, hidden 24, batch_norm true, normalised false; "
        "the plan says layers 3, hidden 99, batch_norm false, normalised true."
    )
    assert caught.value.hint == "set backbones.theirs.head.dino to {layers: 2, hidden: 24, batch_norm: true, normalised: false}."
    import_weights(entry(OF_VIT | {"layers": 2, "hidden": 24, "batch_norm": True, "normalised": False}), tmp_path)


def test_sizes_of_the_real_heads():
    """The published sizes: 65,536 x 256 prototypes, 23.07 million parameters for ViT-B; the keys of both."""
    from anchored.backbones.heads import dino_head

    vit = dino_head(768, DinoLoss(hidden=2048, bottleneck=256, prototypes=65536, batch_norm=False).model_dump(), 0)
    assert round(sum(parameter.numel() for parameter in vit.parameters()) / 1e6, 2) == 23.07
    assert {name.rsplit(".", 1)[0] for name in vit.state_dict()} == {"mlp.0", "mlp.2", "mlp.4", "prototypes"}
    resnet = DinoLoss(layers=2, hidden=4096, bottleneck=256, prototypes=60000, normalised=False).model_dump()
    assert {name.rsplit(".", 1)[0] for name in dino_head(2048, resnet, 0).state_dict()} == {"mlp.0", "mlp.1", "mlp.3", "prototypes"}


def test_strange_heads_are_refused(tmp_path):
    """A file without heads, with a tensor less, with one too many, for features of another width."""
    whole = vit_head(16)
    save(tmp_path, {}, {})
    with pytest.raises(InputError, match="holds no projection head of the student") as caught:
        import_weights(entry(OF_VIT), tmp_path)
    assert caught.value.hint.endswith("set backbones.theirs.head.from: trained.")
    save(tmp_path, {name: value for name, value in whole.items() if "weight_v" not in name}, whole)
    with pytest.raises(InputError, match="the head of the student is none that DINO published"):
        import_weights(entry(OF_VIT), tmp_path)
    save(tmp_path, whole, whole | {"last_layer.bias": torch.ones(30)})
    with pytest.raises(InputError, match=r"the head of the teacher is none that DINO published; it has: last_layer\.bias"):
        import_weights(entry(OF_VIT), tmp_path)
    save(tmp_path, {name: value for name, value in whole.items() if name != "mlp.2.bias"}, whole)
    with pytest.raises(InputError, match=r"\(head of the student\).* 1 tensors are missing \(mlp\.2\.bias\)"):
        import_weights(entry(OF_VIT), tmp_path)
    save(tmp_path, vit_head(17), whole)
    with pytest.raises(InputError, match=r"\(head of the student\): mlp\.0\.weight has shape \(24, 17\), not \(24, 16\)"):
        import_weights(entry(OF_VIT), tmp_path)


def test_centre_of_the_file(tmp_path):
    """One's own DINO runs have it; a file of another number of outputs is damaged."""
    head, centre = vit_head(16), torch.randn(1, 30)
    save(tmp_path, head, head, dino_loss={"center": centre})
    assert torch.equal(import_weights(entry(OF_VIT), tmp_path).centre, centre[0])
    save(tmp_path, head, head, dino_loss={"center": torch.ones(1, 31)})
    with pytest.raises(InputError, match="the centre has 31 values, the heads 30 outputs"):
        import_weights(entry(OF_VIT), tmp_path)
    save(tmp_path, head, head, dino_loss={"center": torch.full((1, 30), float("nan"))})
    with pytest.raises(InputError, match=r"holds NaN or infinity in dino_loss\.center"):
        import_weights(entry(OF_VIT), tmp_path)
