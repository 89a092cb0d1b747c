"""A published FIM: complete, valid, the same bytes every time, refused where anything is wrong, and loadable as documented."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import torch

from anchored.compat import prepare_torchvision
from anchored.errors import ConfigError, InputError
from anchored.files import file_digest, write_json
from anchored.fisher import backbone_digest, diagonal_fisher, load_fisher, save_fisher
from anchored.fisher.errors import ForeignFisher
from anchored.paths import Paths
from anchored.release.metadata import read_metadata, schema

prepare_torchvision()

ROOT = Path(__file__).parents[2]
FILES = {"fim.safetensors", "metadata.json", "README.md", "spectrum.png", "spectrum.svg", "SHA256SUMS"}


def release(plan, name: str, folder: Path, paths: Paths, **options) -> Path:
    from anchored.release.step import fim_release

    fim_release(plan, name, folder, paths, **options)
    return folder


@pytest.fixture(scope="module")
def released(mini, mini_plan, tmp_path_factory) -> Path:
    """A full release of the ResNet's FIM; tests must not change it."""
    folder = tmp_path_factory.mktemp("released") / "fim-1"
    return release(mini_plan, "fim-1", folder, mini, licence="CC-BY-4.0", with_backbone=True)


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes most of the time of a test that does not look."""
    monkeypatch.setattr("anchored.release.step.draw", lambda _: (b"<svg/>", b"\x89PNG"))


@pytest.fixture
def copied(released, tmp_path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "fim-1"))


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def two_batches(size: int):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(2, 3, size, size, generator=generator), torch.tensor([0, 1])) for _ in range(2)]


# --- what is in it ---------------------------------------------------------------------------------------------------------


def test_the_folder_is_complete_and_its_checksums_hold(released):
    """Checked by the program that others will use."""
    assert {path.name for path in released.iterdir()} == FILES | {"LICENSE", "backbone.safetensors"}
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=released, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(FILES) + 1


def test_the_fim_has_the_bytes_of_the_result(released, mini):
    assert (released / "fim.safetensors").read_bytes() == (mini.fim("fim-1") / "fim.safetensors").read_bytes()


def test_metadata_say_what_was_measured(released, mini, mini_plan):
    import numpy as np

    found = read_metadata(released / "metadata.json")
    record = json.loads((mini.fim("fim-1") / "record.json").read_text())
    assert (found.name, found.backbone.name, found.backbone.architecture["family"]) == ("fim-1", "resnet-1", "tiny-resnet")
    assert found.backbone.digest == load_fisher(released).backbone_digest
    assert found.backbone.checkpoint_sha256 == file_digest(mini.backbone("resnet-1") / "model.safetensors")
    measured = found.measurement
    assert (measured.objective, measured.estimator, measured.images, measured.backend) == ("dino", "teacher", 24, "hooks")
    assert measured.precision == "fp32"
    assert measured.date == record["started"]
    assert measured.bank_manifest_sha256 == file_digest(mini.data("bank") / "manifest.json")
    rows = np.random.default_rng([mini_plan["fims"]["fim-1"]["seed"]]).permutation(48)[:24]
    import hashlib

    assert measured.image_list_sha256 == hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    assert found.libraries["torch"] == torch.__version__
    assert found.licence == "CC-BY-4.0"
    assert found.files["fim.safetensors"] == file_digest(released / "fim.safetensors")
    assert set(found.conditioning) == {"none", "normalise", "floor 0.1", "clip 0.99", "layer-mean"}


def test_metadata_are_validated(copied):
    """By the schema that others can use, and by ours: an unknown or missing key is named."""
    import jsonschema

    path = copied / "metadata.json"
    jsonschema.validate(json.loads(path.read_text()), schema())
    value = json.loads(path.read_text())
    write_json(path, value | {"surprise": 1})
    with pytest.raises(InputError, match=r"metadata\.json: surprise: Extra inputs are not permitted"):
        read_metadata(path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(path.read_text()), schema())
    write_json(path, value | {"measurement": value["measurement"] | {"images": "many"}})
    with pytest.raises(InputError, match=r"metadata\.json: measurement\.images: "):
        read_metadata(path)


def test_the_backbone_is_the_anchor(released, mini, mini_plan):
    """Buffers, too: a ResNet without its BatchNorm statistics is another function."""
    state = safetensors.torch.load_file(released / "backbone.safetensors")
    stored = safetensors.torch.load_file(mini.backbone("resnet-1") / "model.safetensors")
    assert "bn1.running_mean" in state
    assert all(torch.equal(value, stored[f"student.{name}"]) for name, value in state.items())


def test_card_shows_figure_licence_and_limits(released):
    text = (released / "README.md").read_text()
    pictures = re.findall(r"\]\((?!http)([^)]+)\)", text)
    assert pictures
    assert all((released / picture).is_file() for picture in pictures)
    assert "`CC-BY-4.0`; see LICENSE" in text
    assert "an empirical Fisher, not the true one" in text
    assert "floor 0.1" in text
    assert "SPDX-License-Identifier: CC-BY-4.0" in (released / "LICENSE").read_text()


# --- loading it ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fim-1", "vit-fim"])
@pytest.mark.parametrize("with_backbone", [True, False])
def test_the_code_on_the_card_runs(mini, mini_plan, tmp_path, monkeypatch, name, with_backbone, no_figures):
    """As it stands, from the folder above; two steps, and the penalty has something to pull."""
    release(mini_plan, name, tmp_path / name, mini, with_backbone=with_backbone)
    (code,) = blocks((tmp_path / name / "README.md").read_text())
    monkeypatch.chdir(tmp_path)
    backbone = mini.backbone(mini_plan["fims"][name]["backbone"])
    anchor = mini_plan["backbones"][backbone.name]["anchor"]
    stored = safetensors.torch.load_file(backbone / "model.safetensors")
    weights = {key.removeprefix(f"{anchor}."): value for key, value in stored.items() if key.startswith(f"{anchor}.")}
    assert ("backbone.safetensors" in code) == with_backbone
    namespace = {"loader": two_batches(20), "weights": weights}
    exec(code, namespace)
    assert namespace["penalty"].penalty() > 0
    assert namespace["penalty"].displacement() > 0


@pytest.fixture(scope="module")
def timm_study(tmp_path_factory):
    """A ViT-Ti of timm with random weights, measured on two images: the backbone of the documentation."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    paths = Paths(tmp_path_factory.mktemp("timm"))
    architecture = {"family": "timm", "name": "vit_tiny_patch16_224", "image": None}
    entry = {"architecture": architecture, "anchor": "student", "mean": [0.5] * 3, "std": [0.5] * 3, "weights": {"timm": True}}
    folder = paths.backbone("vit")
    folder.mkdir(parents=True)
    tensors = {f"student.{name}": value for name, value in model.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    made = {"results/backbones/vit/model.safetensors": file_digest(folder / "model.safetensors")}
    write_json(folder / "record.json", {"entry": entry, "outputs": made})
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    fisher = diagonal_fisher(model, [images], lambda m, x: m(x).square().sum(1))
    facts = {"estimator": "teacher", "objective": "dino", "backbone_digest": backbone_digest(dict(model.named_parameters()))}
    facts |= {"bank_digest": "0" * 64, "images_digest": "1" * 64}
    save_fisher(paths.fim("vit-fim") / "fim.safetensors", fisher, metadata=facts)
    measured = {"backbone": "vit", "bank": "bank", "images": 2, "seed": 1, "views": {}, "backend": "auto", "precision": "fp32"}
    record = {
        "entry": measured, "inputs": {}, "code": {"version": "0", "digest": "0"}, "libraries": {"torch": torch.__version__},
        "outputs": {"results/fim/vit-fim/fim.safetensors": file_digest(paths.fim("vit-fim") / "fim.safetensors")},
        "started": "2026-01-01T00:00:00+00:00", "device": "cpu",
    }  # fmt: skip
    write_json(paths.fim("vit-fim") / "record.json", record)
    return {"fims": {"vit-fim": measured}, "backbones": {"vit": entry}}, paths


@pytest.fixture(scope="module")
def timm_release(timm_study, tmp_path_factory) -> Path:
    return release(timm_study[0], "vit-fim", tmp_path_factory.mktemp("docs") / "release", timm_study[1], with_backbone=True)


def test_the_code_of_the_documentation_runs(timm_release, monkeypatch):
    """All blocks of docs/release.md one after the other, as a reader would: two steps, then the variants."""
    monkeypatch.chdir(timm_release.parent)
    first, *others = blocks((ROOT / "docs" / "release.md").read_text())
    namespace = {"loader": two_batches(224)}
    exec(first, namespace)
    assert namespace["penalty"].penalty() > 0
    assert not namespace["model"].head.weight.equal(torch.zeros_like(namespace["model"].head.weight))
    with pytest.raises(ForeignFisher):  # the model has moved: its anchor has to be made before
        exec(others[0], namespace)
    namespace["model"].load_state_dict(safetensors.torch.load_file("release/backbone.safetensors"), strict=False)
    for block in others:
        exec(block, namespace)
    assert namespace["penalty"].penalty() == 0


def test_the_card_of_a_timm_backbone_runs(timm_release, monkeypatch, tmp_path):
    os.symlink(timm_release, tmp_path / "vit-fim")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks((timm_release / "README.md").read_text())
    assert 'timm.create_model("vit_tiny_patch16_224", num_classes=2)' in code
    namespace = {"loader": two_batches(224)}
    exec(code, namespace)
    assert namespace["penalty"].penalty() > 0


def test_a_release_loads_into_torchvision(timm_release):
    """The documented promise, from the folder."""
    from torchvision.models.vision_transformer import VisionTransformer

    from anchored.fisher.names import LAYOUTS, from_timm

    model = VisionTransformer(224, 16, 12, 3, 192, 768, num_classes=2)
    state = safetensors.torch.load_file(timm_release / "backbone.safetensors")
    model.load_state_dict(from_timm(state, LAYOUTS[1]), strict=False)
    found = load_fisher(timm_release, model)
    assert found.free == ("heads.head.weight", "heads.head.bias")
    assert len(found) == len(state)


@pytest.mark.parametrize("name", sorted(FILES - {"SHA256SUMS"} | {"LICENSE", "backbone.safetensors"}))
def test_a_changed_byte_is_refused_by_name(copied, name):
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(bytes(data))
    with pytest.raises(InputError, match=rf"{re.escape(name)} differs from its checksum in SHA256SUMS"):
        load_fisher(copied)


def test_a_folder_that_is_no_release(copied, tmp_path):
    with pytest.raises(InputError, match="is a folder without SHA256SUMS, so no published FIM"):
        load_fisher(tmp_path)
    (copied / "spectrum.svg").unlink()
    with pytest.raises(InputError, match=r"spectrum\.svg is missing"):
        load_fisher(copied)
    sums = copied / "SHA256SUMS"
    listed = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in listed if "fim.safetensors" not in line))
    with pytest.raises(InputError, match=r"SHA256SUMS does not list fim\.safetensors"):
        load_fisher(copied)
    sums.write_text("0" * 64 + "  ../../etc/passwd\n")
    with pytest.raises(InputError, match=r"SHA256SUMS: line 1 is no checksum"):
        load_fisher(copied)


# --- making it -------------------------------------------------------------------------------------------------------------


def test_a_second_release_has_the_same_bytes(released, mini, mini_plan, tmp_path):
    """No time of day, no path of the folder; and on the same folder there is nothing to do."""
    again = release(mini_plan, "fim-1", tmp_path / "elsewhere", mini, licence="CC-BY-4.0", with_backbone=True)
    for path in released.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name
    before = {path.name: path.stat().st_mtime_ns for path in again.iterdir()}
    release(mini_plan, "fim-1", again, mini, licence="CC-BY-4.0", with_backbone=True)
    assert {path.name: path.stat().st_mtime_ns for path in again.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"], "no temporary folder is left"


def test_an_earlier_release_is_replaced_only_by_force(copied, mini, mini_plan, no_figures):
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    with pytest.raises(ConfigError, match=r"holds another release\.") as caught:
        release(mini_plan, "fim-2", copied, mini)
    assert "--force" in caught.value.hint
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
    release(mini_plan, "fim-2", copied, mini, force=True)
    assert {path.name for path in copied.iterdir()} == FILES
    assert load_fisher(copied).metadata["backbone"] == "resnet-2"


@pytest.mark.parametrize("force", [False, True])
def test_the_files_of_others_are_never_replaced(copied, mini, mini_plan, tmp_path, force):
    """Even --force is no licence to delete a home folder."""
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds files of somebody else: notes\.txt\."):
        release(mini_plan, "fim-1", copied, mini, force=force)
    other = tmp_path / "other"
    other.mkdir()
    (other / "SHA256SUMS").write_text("")
    with pytest.raises(ConfigError, match="holds files of somebody else: SHA256SUMS"):
        release(mini_plan, "fim-1", other, mini, force=force)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is no folder"):
        release(mini_plan, "fim-1", tmp_path / "file", mini, force=force)
    assert (copied / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(mini, mini_plan, tmp_path, no_figures):
    (tmp_path / "empty").mkdir()
    assert {path.name for path in release(mini_plan, "fim-2", tmp_path / "empty", mini).iterdir()} == FILES


def test_a_failure_leaves_nothing(mini, mini_plan, tmp_path, monkeypatch, no_figures):
    """The last file fails: neither the folder nor a temporary one may stay."""

    def fail(*_):
        raise RuntimeError("power cut")

    monkeypatch.setattr("anchored.release.step.checksums", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        release(mini_plan, "fim-1", tmp_path / "fim", mini)
    assert list(tmp_path.iterdir()) == []


def test_a_fim_that_was_changed_is_not_published(mini_copy, mini_plan, tmp_path):
    path = mini_copy.fim("fim-1") / "fim.safetensors"
    shutil.copy(mini_copy.fim("fim-2") / "fim.safetensors", path)
    with pytest.raises(InputError, match=r"fim\.safetensors differs from its record"):
        release(mini_plan, "fim-1", tmp_path / "fim", mini_copy)
    path.unlink()
    with pytest.raises(InputError, match=r"fim\.safetensors is missing\.\n  run `anchored fim fim-1`"):
        release(mini_plan, "fim-1", tmp_path / "fim", mini_copy)


def test_a_fim_of_another_backbone_is_not_published(mini_copy, mini_plan, tmp_path):
    shutil.copy(mini_copy.backbone("resnet-2") / "model.safetensors", mini_copy.backbone("resnet-1") / "model.safetensors")
    with pytest.raises(ForeignFisher, match="was measured on backbone"):
        release(mini_plan, "fim-1", tmp_path / "fim", mini_copy)
    assert not (tmp_path / "fim").exists()


def test_the_bank_is_not_needed_any_more(mini_copy, mini_plan, tmp_path, no_figures):
    """What was measured stands in the file of the FIM."""
    shutil.rmtree(mini_copy.data("bank"))
    found = read_metadata(release(mini_plan, "fim-1", tmp_path / "fim", mini_copy) / "metadata.json")
    assert len(found.measurement.image_list_sha256) == len(found.measurement.bank_manifest_sha256) == 64


def test_the_command(run_cli, mini_copy, tmp_path, no_figures):
    folder = str(tmp_path / "fim")
    done = run_cli("fim-release", "fim-1", folder, "--licence", "Apache-2.0 OR MIT", root=mini_copy.root)
    assert (done.code, done.out) == (0, ""), done.err
    assert "fim-release fim-1: 7 files in " in done.err
    done = run_cli("fim-release", "fim-1", folder, "--licence", "Apache-2.0 OR MIT", root=mini_copy.root)
    assert "nothing to do" in done.err
    done = run_cli("fim-release", "fim-1", folder, "--licence", "all rights", root=mini_copy.root)
    assert done.code == 2
    assert "'all rights' is no SPDX licence expression" in " ".join(done.err.split())
    done = run_cli("fim-release", "fim", folder, root=mini_copy.root)
    assert done.code == 2
    assert "did you mean 'fim-" in done.err
