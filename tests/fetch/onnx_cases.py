"""ONNX files made by hand from the numbers of onnx.proto: an encoder that shares nothing with the reader under test."""

from collections.abc import Iterable, Mapping

import numpy as np

FLOAT, DOUBLE = 1, 11


def varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, array: np.ndarray, *, kind: int = FLOAT, packed: bool = False) -> bytes:
    if packed:
        dims = field(1, b"".join(varint(extent) for extent in array.shape))
    else:
        dims = b"".join(field(1, extent) for extent in array.shape)
    return dims + field(2, kind) + field(8, name) + field(9, array.tobytes())


def node(kind: str, inputs: Iterable[str], output: str) -> bytes:
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(3, f"node of {output}") + field(4, kind)


def model(nodes: Iterable[bytes], tensors: Iterable[bytes]) -> bytes:
    graph = b"".join(field(1, one) for one in nodes) + field(2, "main") + b"".join(field(5, one) for one in tensors)
    return field(1, 7) + field(2, "by hand") + field(7, graph)


def arrays(tensors: Mapping[str, np.ndarray]) -> list[bytes]:
    return [tensor(name, array) for name, array in tensors.items()]
