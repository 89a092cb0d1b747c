"""The step `fim` from end to end: the stored Fisher against one image at a time through plain autograd."""

import json

import numpy as np
import pytest
import torch

from anchored.backbones.checkpoint import load_anchor, network
from anchored.backbones.features import normalise
from anchored.backbones.heads import dino_head
from anchored.data.store import open_store
from anchored.data.views import ViewMaker, draw
from anchored.errors import ConfigError, InputError
from anchored.fisher import load_fisher
from anchored.fisher.step import fim
from anchored.objectives.dino import dino_losses, sampled_losses

CPU = torch.device("cpu")


def slow_fisher(mini, plan, name: str) -> dict[str, torch.Tensor]:
    """F = (1/N) sum of squared gradients: image after image, with its own generator, nothing batched."""
    entry = plan["fims"][name]
    backbone = plan["backbones"][entry["backbone"]]
    model, tensors = load_anchor(mini.backbone(entry["backbone"]) / "model.safetensors", backbone, made_by="x")
    settings = backbone["pretraining"]["dino"]
    teacher, _ = load_anchor(mini.backbone(entry["backbone"]) / "model.safetensors", backbone | {"anchor": "teacher"}, made_by="x")
    heads = {}
    for which in ("student", "teacher"):
        heads[which] = dino_head(model.num_features, settings, 0).eval()
        heads[which].load_state_dict(network(tensors, f"{which}_head"))
    bank = open_store(mini.data(entry["bank"]))
    maker = ViewMaker(bank, entry["views"], CPU)
    sums = {key: torch.zeros_like(value, dtype=torch.float64) for key, value in model.named_parameters()}
    rows = np.random.default_rng([entry["seed"]]).permutation(len(bank.packed))[: entry["images"]]
    for row in rows:
        rng = np.random.default_rng([entry["seed"], int(row)])
        large, small = maker(np.array([row]), draw(rng, 1, entry["views"], len(bank.packed)))
        parts = [normalise(part, backbone)[0] for part in (large, small) if part is not None]
        logits = torch.cat([heads[backbone["anchor"]](model(part)).logits for part in parts])[None]
        if entry["estimator"] == "sampled":
            uniforms = torch.from_numpy(rng.random(logits.shape[1], dtype=np.float32))[None]
            loss = sampled_losses(logits, uniforms, student_temperature=settings["student_temperature"])
        else:
            with torch.no_grad():
                targets = heads["teacher"](teacher(parts[0])).logits[None]
            loss = dino_losses(
                logits, targets, tensors["centre"],
                student_temperature=settings["student_temperature"], teacher_temperature=settings["teacher_temperature"],
            )  # fmt: skip
        for key, gradient in zip(sums, torch.autograd.grad(loss.sum(), list(model.parameters())), strict=True):
            sums[key] += gradient.double() ** 2
    return {key: value / len(rows) for key, value in sums.items()}


@pytest.mark.parametrize("name", ["fim-1", "vit-fim"])
def test_stored_fisher_is_the_mean_square_of_single_gradients(mini, mini_plan, name):
    """Which images, which views, which head, which targets: a wrong choice of any gives a smooth, plausible, wrong F."""
    found = load_fisher(mini.fim(name) / "fim.safetensors")
    expected = slow_fisher(mini, mini_plan, name)
    assert found.count == mini_plan["fims"][name]["images"]
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key].double(), value, rtol=1e-3, atol=1e-5 * float(value.max()))


def test_batch_size_changes_rounding_only(mini_copy, change_plan):
    """`batch` is a matter of memory; the views of an image belong to the image."""
    before = load_fisher(mini_copy.fim("fim-1") / "fim.safetensors")
    fim(change_plan({("fims", "fim-1", "batch"): 7}), "fim-1", mini_copy)
    after = load_fisher(mini_copy.fim("fim-1") / "fim.safetensors")
    for key in before:
        torch.testing.assert_close(after[key], before[key], rtol=1e-4, atol=1e-6 * float(before[key].max()))


def test_rerun_is_bit_identical(mini_copy, mini_plan):
    """Cells carry the digest of this file."""
    path = mini_copy.fim("fim-2") / "fim.safetensors"
    before = path.read_bytes()
    fim(mini_plan, "fim-2", mini_copy, force=True)
    assert path.read_bytes() == before


def test_record_and_card_say_what_was_measured(mini, mini_plan):
    """The report quotes them."""
    measured = json.loads((mini.fim("fim-1") / "record.json").read_text())["measurements"]
    assert (measured["count"], measured["backbone"], measured["estimator"]) == (24, "resnet-1", "teacher")
    found = load_fisher(mini.fim("fim-1") / "fim.safetensors")
    assert measured["trace"] == pytest.approx(sum(float(value.double().sum()) for value in found.values()), rel=1e-5)
    assert "resnet-1" in (mini.fim("fim-1") / "card.md").read_text()


def test_more_images_than_the_bank_has(mini_copy, change_plan):
    """Drawing with replacement would quietly measure fewer images than the card says."""
    with pytest.raises(ConfigError, match=r"fims\.images is 49, the bank 'bank' has 48") as caught:
        fim(change_plan({("fims", "fim-1", "images"): 49}), "fim-1", mini_copy)
    assert caught.value.hint == "lower fims.images."


def test_backbone_without_its_head(mini_copy, mini_plan):
    """A checkpoint cut down to the network has no SSL loss: exit code 3, not a KeyError."""
    import safetensors.torch

    path = mini_copy.backbone("resnet-1") / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({key: value for key, value in tensors.items() if key.startswith("student.")}, path)
    with pytest.raises(InputError):
        fim(mini_plan, "fim-1", mini_copy)
