"""Arrays and nodes of ONNX files, read without the onnx package."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_cases import DOUBLE, field, model, node, tensor

from anchored.fetch.onnx_weights import BadModel, Node, read_graph

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("packed", [True, False])
def test_arrays_and_nodes_come_back(packed: bool):
    """Exporters write shapes packed or not; both are the same message."""
    tensors = [tensor("w", WEIGHT, packed=packed), tensor("scalar", np.array(7, dtype=np.float32))]
    data = model([node("MatMul", ["x", "w"], "y")], tensors)
    graph = read_graph(data)
    assert graph.nodes == [Node("MatMul", ("x", "w"), ("y",))]
    np.testing.assert_array_equal(graph.arrays["w"], WEIGHT)
    assert (graph.arrays["scalar"].shape, graph.arrays["scalar"].item()) == ((), 7)


def test_an_array_of_another_shape_is_refused_by_name():
    graph = read_graph(model([], [tensor("w", WEIGHT)]))
    with pytest.raises(BadModel, match=r"w has shape \[2, 3\], expected \[3, 2\]"):
        graph.array("w", 3, 2)
    with pytest.raises(BadModel, match="no array is named v"):
        graph.array("v", 1)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "holds 0 graphs"),
        (field(7, b"") * 2, "holds 2 graphs"),
        (b"\x7fELF" + bytes(9), "wire type 7"),
        (model([], [tensor("w", WEIGHT.astype(np.float64), kind=DOUBLE)]), "array w is not float32"),
        (model([], [tensor("w", WEIGHT) + field(14, 1)]), "array w is not float32 with raw data inside the file"),
        (model([], [field(1, 3) + field(2, 1) + field(8, "w")]), "array w is not float32"),
        (model([], [field(1, 3) + field(2, 1) + field(8, "w") + field(9, bytes(8))]), r"w has 8 bytes, .* asks for 12"),
        (model([], [field(1, 0) + field(1, (1 << 64) - 1) + field(2, 1) + field(8, "w") + field(9, b"")]), "impossible shape"),
        (model([], [tensor("w", WEIGHT), tensor("w", WEIGHT)]), "array w appears twice"),
        (model([], [field(8, b"\xff")]), "a name is not UTF-8"),
        (field(7, field(5, 1)), "a number stands where a message belongs"),
        (field(7, b"\x0a\x7f"), "ends inside a field"),
        (b"\x08" + b"\xff" * 11, "more than ten bytes"),
        (b"\x08\xff", "ends inside a number"),
    ],
)
def test_what_is_no_model_is_refused(data: bytes, sentence: str):
    with pytest.raises(BadModel, match=sentence):
        read_graph(data)


@given(place=st.integers(0, 200), value=st.integers(0, 255), cut=st.integers(0, 60))
def test_damage_anywhere_is_a_bad_model_or_harmless(place: int, value: int, cut: int):
    data = bytearray(model([node("Add", ["b", "y"], "z")], [tensor("w", WEIGHT), tensor("b", WEIGHT[0])]))
    if place < len(data):
        data[place] = value
    with suppress(BadModel):
        read_graph(bytes(data[: len(data) - cut]))
