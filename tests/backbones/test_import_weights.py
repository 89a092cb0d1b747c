"""Imports of other people's weights: every published layout gives the published features, and what is wrong is a sentence."""

import argparse
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from published import dinov2_hub, full_checkpoint, vit_head

from anchored.backbones.build import build, seeded
from anchored.backbones.checkpoint import load_state
from anchored.backbones.features import channel_statistics
from anchored.backbones.imports import import_weights
from anchored.errors import ConfigError, InputError
from anchored.files import file_digest

RESNET = {"family": "tiny-resnet", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}
VIT = {"family": "tiny-vit", "image": 20, "patch": 4, "width": 16, "depth": 2, "heads": 2}


def entry(checkpoint: str = "weights.pth", *, architecture: dict = RESNET, digest: str | None = None, **more) -> dict:
    weights = {"checkpoint": checkpoint, "digest": digest, "timm": False, "source": "theirs"}
    values = {"family": "theirs", "architecture": architecture, "anchor": "student", "weights": weights, "head": None}
    return values | {"mean": [0.5] * 3, "std": [0.25] * 3} | more


def timm_model(name: str, image: int | None = None) -> dict:
    return {"family": "timm", "name": name, "image": image}


@pytest.fixture
def model() -> torch.nn.Module:
    return seeded(RESNET, 1)


def student(root: Path, **options) -> torch.nn.Module:
    return import_weights(entry(**options), root).networks["student"].eval()


def assert_same(model: torch.nn.Module, other: torch.nn.Module) -> None:
    expected, found = model.state_dict(), other.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) and expected[name].dtype == found[name].dtype for name in expected)


FORMS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state},
    "model with its epoch": lambda state: {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "of one GPU among many": lambda state: {f"module.{name}": value for name, value in state.items()},
    "nested": lambda state: {"checkpoint": {"state_dict": state}},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_import_of_a_pickle(model, tmp_path, form, zipped):
    """Files as other people publish them: plain or wrapped, of any age of torch."""
    torch.save(FORMS[form](model.state_dict()), tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    assert_same(student(tmp_path), model)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_import_of_safetensors(model, tmp_path, name):
    """What a file is, its content says."""
    safetensors.torch.save_file(model.state_dict(), tmp_path / name)
    assert_same(student(tmp_path, checkpoint=name), model)


def test_resnet_in_torchvisions_names(tmp_path):
    """The hub's DINO ResNet-50 is torchvision's without `fc`."""
    import torchvision

    theirs = torchvision.models.resnet50(weights=None).eval()
    theirs.fc = torch.nn.Identity()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = student(tmp_path, architecture=timm_model("resnet50"))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("registers", [False, True], ids=["plain", "registers"])
def test_dinov2_hub_file(tmp_path, registers):
    """Mask token, register tokens, positions that include the class token's: the features are those of the original."""
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    theirs = seeded(timm_model(name), 1).eval()
    torch.nn.init.normal_(theirs.cls_token)  # timm starts it at 1e-6, where taking a position away and adding it is all rounding
    torch.save(dinov2_hub(theirs.state_dict(), registers=registers), tmp_path / "weights.pth")
    found = import_weights(entry(architecture=timm_model(name)), tmp_path)
    images = torch.randn(1, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found.networks["student"].eval()(images), theirs(images), rtol=1e-5, atol=1e-5)
    assert found.facts["dropped"] == {"mask_token": [1, 384]}
    assert "resampled" not in found.facts


def test_positions_of_another_image_size_are_resampled(tmp_path):
    """224 pixels have 14 x 14 positions, 112 have 7 x 7; the class token's stays. What was done stands in the record."""
    theirs = seeded(timm_model("vit_tiny_patch16_224"), 1)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    found = import_weights(entry(architecture=timm_model("vit_tiny_patch16_224", 112)), tmp_path)
    grid = theirs.pos_embed[:, 1:].detach().reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    small = F.interpolate(grid, size=(7, 7), mode="bicubic", antialias=True, align_corners=False)
    expected = torch.cat([theirs.pos_embed[:, :1].detach(), small.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    torch.testing.assert_close(found.networks["student"].pos_embed.detach(), expected)
    assert found.facts["resampled"] == {"pos_embed": "14x14 to 7x7, bicubic, anti-aliased"}


def test_full_checkpoint_has_two_networks(tmp_path):
    """The published evaluations use the teacher; taking the student's weights for it is off by a point of accuracy."""
    networks = seeded(VIT, 1), seeded(VIT, 2)
    states = [network.state_dict() for network in networks]
    torch.save(full_checkpoint(*states, vit_head(16), vit_head(16)), tmp_path / "weights.pth")
    found = import_weights(entry(architecture=VIT, anchor="teacher"), tmp_path)
    assert_same(found.networks["student"], networks[0])
    assert_same(found.networks["teacher"], networks[1])
    assert found.facts["layout"] == "DINO full checkpoint"
    assert found.heads == {}


def test_classifier_is_dropped_and_recorded(tmp_path):
    """A supervised file for the contrast arm: its classifier is no part of the backbone, and the record says that it was there."""
    import timm

    torch.save(timm.create_model("test_vit", num_classes=7).state_dict(), tmp_path / "weights.pth")
    found = import_weights(entry(architecture=timm_model("test_vit")), tmp_path)
    assert found.facts["dropped"] == {"head.weight": [7, 64], "head.bias": [7]}


def test_what_only_looks_like_a_classifier_is_refused(tmp_path):
    """A projection of the same name, or anything beside it, may be a part that the features need."""
    import timm

    path, fitting = tmp_path / "weights.pth", entry(architecture=timm_model("test_vit"))
    state = timm.create_model("test_vit", num_classes=7).state_dict()
    torch.save(state | {"head.weight": torch.ones(7, 65)}, path)
    with pytest.raises(InputError, match=r"0 tensors are missing \(\), 2 are not known \(head\.bias, head\.weight\)"):
        import_weights(fitting, tmp_path)
    torch.save(state | {"head.mlp.weight": torch.ones(64, 64)}, path)
    with pytest.raises(InputError, match=r"3 are not known \(head\.bias, head\.mlp\.weight, head\.weight\)"):
        import_weights(fitting, tmp_path)


class _Attack:
    """A pickle that writes a file when somebody opens it carelessly."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.write_text, (self.victim, "owned")


@pytest.mark.parametrize("place", ["beside the tensors", "in the options", "as a tensor's name"])
@pytest.mark.parametrize("how", ["torch", "old torch", "pickle"])
def test_code_in_a_pickle_does_not_run(tmp_path, how, place):
    """.pth files are programs; a downloaded one must not be able to do anything. The allowed Namespace is no way around it."""
    victim, path = tmp_path / "victim", tmp_path / "weights.pth"
    evil = _Attack(victim)
    attack = {
        "beside the tensors": {"weight": torch.ones(1), "evil": evil},
        "in the options": {"weight": torch.ones(1), "args": argparse.Namespace(evil=evil)},
        "as a tensor's name": {"weight": torch.ones(1), evil: 1},
    }[place]
    if how == "pickle":
        path.write_bytes(pickle.dumps(attack | {"weight": 1}, protocol=2))
    else:
        torch.save(attack, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(InputError, match="is no plain tensor file: it calls '") as caught:
        import_weights(entry(), tmp_path)
    assert any(name in caught.value.message for name in ("write_text", "PosixPath", "getattr"))
    assert caught.value.hint == "only files of tensors are read."
    assert not victim.exists()
    pickle.loads(path.read_bytes()) if how == "pickle" else torch.load(path, weights_only=False)
    assert victim.read_text() == "owned", "the attack would not have worked, so this test shows nothing"


@pytest.mark.parametrize("function", ["os.system", "builtins.eval", "subprocess.Popen"])
def test_the_refused_name_is_told(tmp_path, function):
    """Whoever gets such a file wants to know what it tried."""
    module, name = function.rsplit(".", 1)
    (tmp_path / "weights.pth").write_bytes(f"c{module}\n{name}\n(S'true'\ntR.".encode())
    with pytest.raises(InputError, match=f"it calls '({function}|{name})'"):
        import_weights(entry(), tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 100, 4000, -30])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated_file(model, tmp_path, keep, suffix):
    """A download that was cut short."""
    path = tmp_path / f"weights.{suffix}"
    safetensors.torch.save_file(model.state_dict(), path) if suffix == "safetensors" else torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="is truncated") as caught:
        import_weights(entry(path.name), tmp_path)
    assert caught.value.hint == "fetch the file again."


def test_files_without_a_backbone(tmp_path):
    """A list, an optimiser, nothing: what is in the file instead."""
    path = tmp_path / "weights.pth"
    for content, said in {
        "a list": ([torch.ones(1)], "but a list"),
        "a number": ({"a": 1, "b": torch.ones(1)}, "it has: a, b"),
        "nothing": ({}, "it has: nothing"),
    }.values():
        torch.save(content, path)
        with pytest.raises(InputError, match="holds no flat mapping of names to tensors") as caught:
            import_weights(entry(), tmp_path)
        assert said in caught.value.message


def _itself() -> dict:
    """A mapping that holds nothing but itself."""
    value: dict = {}
    value["model"] = value
    return value


ODD = {"itself": _itself(), "a number": {0: torch.zeros(2)}, "a pair": {"model": {(1, 2): torch.zeros(2)}}}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_odd_mappings_are_refused(tmp_path, content):
    """weights_only lets plain containers pass, whatever their shape."""
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(InputError, match="holds no flat mapping of names to tensors"):
        import_weights(entry("odd.pth"), tmp_path)


def test_a_folder_is_no_file_of_weights(tmp_path):
    """As somebody places it who unpacked an archive."""
    (tmp_path / "theirs.pth").mkdir()
    with pytest.raises(InputError, match=r"theirs\.pth is a folder"):
        import_weights(entry("theirs.pth"), tmp_path)


def test_another_architecture_is_named(model, tmp_path):
    """How many tensors are missing and too many, and the first of each; a shape; a patch size that timm would resample."""
    path = tmp_path / "weights.pth"
    torch.save(build(VIT).state_dict(), path)
    with pytest.raises(InputError, match=r"does not fit the architecture: \d+ tensors are missing \(bn1") as caught:
        import_weights(entry(), tmp_path)
    assert "check architecture and weights" in caught.value.hint
    state = model.state_dict()
    del state["layer2.0.bn1.bias"]
    torch.save(state | {"layer9.weight": torch.ones(1)}, path)
    with pytest.raises(InputError, match=r"1 tensors are missing \(layer2\.0\.bn1\.bias\), 1 are not known \(layer9\.weight\)"):
        import_weights(entry(), tmp_path)
    torch.save(model.state_dict() | {"bn1.bias": torch.ones(3)}, path)
    with pytest.raises(InputError, match=r"bn1\.bias has shape \(3,\), not \(64,\)"):
        import_weights(entry(), tmp_path)
    torch.save(build(VIT | {"patch": 5}).state_dict(), path)
    with pytest.raises(InputError, match=r"patch_embed\.proj\.weight has shape \(16, 3, 5, 5\), not \(16, 3, 4, 4\)"):
        import_weights(entry(architecture=VIT), tmp_path)


def test_nan_is_named_with_its_network(model, tmp_path):
    """One broken value spreads to every feature."""
    path = tmp_path / "weights.pth"
    model.conv1.weight.data[0, 0, 0, 0] = float("nan")
    torch.save(model.state_dict(), path)
    with pytest.raises(InputError, match=r"holds NaN or infinity in conv1\.weight"):
        import_weights(entry(), tmp_path)
    good = build(RESNET).state_dict()
    torch.save(full_checkpoint(good, model.state_dict(), vit_head(16), vit_head(16)), path)
    with pytest.raises(InputError, match=r"holds NaN or infinity in teacher\.conv1\.weight"):
        import_weights(entry(), tmp_path)


def test_full_checkpoint_with_strange_parts(tmp_path):
    """A fork that trains something else beside backbone and head: not to be dropped in silence."""
    state = build(VIT).state_dict()
    content = full_checkpoint(state, state, vit_head(16), vit_head(16))
    content["teacher"]["predictor.weight"] = torch.ones(1)
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"teacher has 1 tensors outside of backbone\.\* and head\.\*: predictor\.weight"):
        import_weights(entry(architecture=VIT), tmp_path)
    content["teacher"] = {name: value for name, value in content["teacher"].items() if name.startswith("head.")}
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"teacher has no backbone\.\*"):
        import_weights(entry(architecture=VIT), tmp_path)


def test_another_file_of_the_same_name(model, tmp_path, caplog):
    """The plan pins a file by digest: a re-uploaded checkpoint is another backbone. Unpinned, the digest is told."""
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    digest = file_digest(path)
    with pytest.raises(InputError, match=f"has SHA-256 {digest}, the plan pins {'0' * 64}"):
        import_weights(entry(digest="0" * 64), tmp_path)
    assert import_weights(entry(digest=digest), tmp_path).facts["digest"] == digest
    with caplog.at_level("INFO", "anchored"):
        assert import_weights(entry(), tmp_path).facts["digest"] == digest
    assert f"SHA-256 {digest} (not pinned by weights.digest)" in caplog.text
    with pytest.raises(InputError, match=r"none\.pth is missing") as caught:
        import_weights(entry("none.pth"), tmp_path)
    assert "weights.checkpoint" in caught.value.hint


def test_teacher_of_a_file_with_one_network(model, tmp_path):
    """Only the file tells; it is opened when the backbone is made, not when fine-tuning starts."""
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"backbones\.theirs\.anchor is teacher, but .* holds one network"):
        import_weights(entry(anchor="teacher"), tmp_path)


def test_description_beside_the_file(model, tmp_path):
    """Where weights came from travels with them into the record."""
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    beside = tmp_path / "weights.pth.source.json"
    assert import_weights(entry(), tmp_path).facts["source"] == {"name": "theirs"}
    described = {"name": "trunk", "version": "1", "licences": ["MIT"], "note": "possibly fine-tuned"}
    beside.write_text(json.dumps({"schema": 1, **described}))
    assert import_weights(entry(), tmp_path).facts["source"] == {"name": "theirs", "file": described}
    for text, said in {"{": "is not valid JSON", "[]": "the whole: ", '{"schema": 2}': "schema: Input should be 1"}.items():
        beside.write_text(text)
        with pytest.raises(InputError, match=said):
            import_weights(entry(), tmp_path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the Hugging Face hub, and no network; hub(name, state) puts weights into it."""
    from huggingface_hub import constants
    from timm.models import get_pretrained_cfg

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name: str, state: dict[str, torch.Tensor]) -> Path:
        folder = tmp_path / "hub" / f"models--{get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
        (folder / "snapshots/abc").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs/main").write_text("abc")
        safetensors.torch.save_file(state, folder / "snapshots/abc/model.safetensors")
        return folder / "snapshots/abc/model.safetensors"

    return put


def from_timm(name: str, digest: str | None = None) -> dict:
    weights = {"checkpoint": None, "digest": digest, "timm": True, "source": f"timm {name}"}
    return entry(architecture=timm_model(name), mean=None, std=None) | {"weights": weights}


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NAMES = {
    "vit_small_patch16_224.dino": IMAGENET,
    "vit_small_patch14_dinov2.lvd142m": IMAGENET,
    "vit_base_patch16_224.mae": IMAGENET,
    "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "test_vit.r160_in1k": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@pytest.mark.parametrize("name", NAMES)
def test_timm_weights_out_of_the_cache(hub, tmp_path, name):
    """DINO, DINOv2, MAE, CLIP by timm's name, without a network; the digest is known, the inputs are the model's own."""
    import timm

    theirs = timm.create_model(name)
    path = hub(name, theirs.state_dict())
    found = import_weights(from_timm(name, digest=file_digest(path)), tmp_path)
    state = theirs.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in found.networks["student"].state_dict().items())
    assert found.facts["digest"] == file_digest(path)
    assert found.facts["source"] == {"name": f"timm {name}"}
    mean, std = NAMES[name]
    assert found.facts["input"] == {"mean": list(mean), "std": list(std)}
    with pytest.raises(InputError, match="the plan pins 000"):
        import_weights(from_timm(name, digest="0" * 64), tmp_path)


def test_timm_weights_that_lack_a_tensor(hub, tmp_path):
    """timm itself loads such files with a line in its log, and the tensor stays random."""
    import timm

    state = timm.create_model("test_vit.r160_in1k").state_dict()
    del state["blocks.1.mlp.fc1.bias"]
    hub("test_vit.r160_in1k", state)
    with pytest.raises(InputError, match=r"1 tensors are missing \(blocks\.1\.mlp\.fc1\.bias\)"):
        import_weights(from_timm("test_vit.r160_in1k"), tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vit_base_patch16_224.dino", IMAGENET), ("vit_small_patch14_dinov2", IMAGENET), ("resnet50", IMAGENET)],
)
def test_inputs_of_a_timm_model_are_its_own(name, expected):
    """0.5 and 0.25 of the tiny networks once went into every ImageNet model that did not say otherwise."""
    assert channel_statistics(entry(architecture=timm_model(name), mean=None, std=None)) == expected
    given = entry(architecture=timm_model(name), mean=[0.1, 0.2, 0.3], std=None)
    assert channel_statistics(given) == ([0.1, 0.2, 0.3], expected[1])


def test_inputs_of_an_ambiguous_name():
    """timm's first weights of vit_base_patch16_224 want 0.5, its DINO ones ImageNet's: a file of that name tells neither."""
    with pytest.raises(ConfigError, match=r"timm's weights of vit_base_patch16_224 want inputs of 3 kinds") as caught:
        channel_statistics(entry(architecture=timm_model("vit_base_patch16_224"), mean=None, std=None))
    assert "vit_base_patch16_224.dino" in caught.value.hint


def test_local_views_of_a_timm_vit(tmp_path):
    """Multi-crop sends 96 pixels through a network of 224: positions are those of a network built for 96."""
    model = seeded(timm_model("vit_tiny_patch16_224"), 1).eval()
    small = build(timm_model("vit_tiny_patch16_224", 96)).eval()
    grid = model.pos_embed[:, 1:].detach().reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True, align_corners=False)
    positions = torch.cat([model.pos_embed[:, :1].detach(), resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    load_state(small, model.state_dict() | {"pos_embed": positions}, where="small")
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(images), small(images), rtol=1e-4, atol=1e-5)
