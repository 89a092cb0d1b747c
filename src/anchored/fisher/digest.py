"""One name for the values of a set of parameters.

digest = sha256( for each name in sorted order: name, dtype, shape, raw bytes )
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def backbone_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 in hexadecimal of the named tensors: the parameters that the Fisher covers.

    The order of `state`, the device and the memory format do not matter; the dtype and every bit of the values do.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
