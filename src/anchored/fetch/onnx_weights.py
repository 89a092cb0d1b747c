"""Reads the arrays and the nodes of an ONNX file, without the onnx package and without running anything.

An ONNX file is a protobuf message; only the fields named here are looked at (numbers from onnx.proto):

    model     7 graph
    graph     1 node, 5 initializer
    node      1 input, 2 output, 4 op_type
    tensor    1 dims, 2 data_type, 8 name, 9 raw_data, 14 data_location

Arrays are float32 with raw data inside the file, which is what exporters write; anything else is refused by name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT = 1


class BadModel(ValueError):
    """The bytes are no ONNX model this reader understands; the text says where."""


@dataclass(frozen=True)
class Node:
    """An operation: its kind and the names of the values it reads and writes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """`nodes` in the order of the file and `arrays` by name; arrays are read-only views of the file's bytes."""

    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def array(self, name: str, *shape: int) -> NDArray[np.float32]:
        """The array of that name, which must have that shape.

        Raises:
            BadModel: absent, or of another shape.
        """
        if name not in self.arrays:
            raise BadModel(f"no array is named {name}")
        if self.arrays[name].shape != shape:
            raise BadModel(f"{name} has shape {list(self.arrays[name].shape)}, expected {list(shape)}")
        return self.arrays[name]


def read_graph(data: bytes) -> Graph:
    """Nodes and arrays of the model's graph.

    Raises:
        BadModel: no protobuf, no graph, an array twice, of another type than float32, kept outside the file, or with more or
            fewer bytes than its shape asks for.
    """
    graphs = [value for number, value in _fields(memoryview(data)) if number == 7 and isinstance(value, memoryview)]
    if len(graphs) != 1:
        raise BadModel(f"the file holds {len(graphs)} graphs, not one")
    graph = Graph()
    for number, value in _fields(graphs[0]):
        if number == 1:
            graph.nodes.append(_node(_message(value)))
        elif number == 5:
            name, array = _tensor(_message(value))
            if name in graph.arrays:
                raise BadModel(f"array {name} appears twice")
            graph.arrays[name] = array
    return graph


def _node(message: memoryview) -> Node:
    inputs, outputs, kind = [], [], ""
    for number, value in _fields(message):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
    return Node(kind, tuple(inputs), tuple(outputs))


def _tensor(message: memoryview) -> tuple[str, NDArray[np.float32]]:
    shape: list[int] = []
    name, kind, external = "", None, False
    raw: memoryview | None = None
    for number, value in _fields(message):
        if number == 1:
            shape.extend([value] if isinstance(value, int) else _varints(value))
        elif number == 2:
            kind = value
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _message(value)
        elif number == 14:
            external = value != 0
    if kind != _FLOAT or external or raw is None:
        raise BadModel(f"array {name or '(no name)'} is not float32 with raw data inside the file")
    if raw.nbytes != 4 * prod(shape):
        raise BadModel(f"array {name} has {raw.nbytes} bytes, its shape {shape} asks for {4 * prod(shape)}")
    try:
        return name, np.frombuffer(raw, dtype="<f4").reshape(shape)
    except (ValueError, OverflowError) as error:  # a zero beside a number that no array can have
        raise BadModel(f"array {name} has an impossible shape {shape}") from error


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value: an integer, or the bytes of a string, message, packed list or fixed number."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise BadModel(f"no protobuf message: wire type {kind}")
        if place + length > len(message):
            raise BadModel("the message ends inside a field")
        yield key >> 3, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise BadModel("the message ends inside a number")
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise BadModel("a number has more than ten bytes")


def _varints(message: memoryview) -> Iterator[int]:
    place = 0
    while place < len(message):
        value, place = _varint(message, place)
        yield value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise BadModel("a number stands where a message belongs")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError as error:
        raise BadModel("a name is not UTF-8") from error
