"""How a batch is divided into its images.

A batch is a tensor whose first dimension counts images, a tuple, list or dict of batches, or any object with `__len__` and
`__getitem__(slice)`. Views are a dimension after the first, (B, V, C, H, W). Numbers, strings, None and tensors without dimensions
inside a tuple, list or dict belong to every image.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anchored.fisher.errors import BadBatch


def image_count(batch: Any) -> int:
    """Number of images of `batch`.

    Raises:
        BadBatch: it has no images to count, or its parts disagree.
    """
    counts = set(_counts(batch))
    if len(counts) != 1:
        found = "no part with a leading image dimension" if not counts else f"parts of {sorted(counts)} images"
        raise BadBatch(
            f"a batch of type {type(batch).__name__} has {found}.",
            "give a tensor, a tuple or dict of tensors with one leading dimension, or an object with slices.",
        )
    return counts.pop()


def image_slice(batch: Any, start: int, stop: int) -> Any:
    """The images `start` to `stop` of `batch`, in the same structure."""
    if _is_constant(batch):
        return batch
    if isinstance(batch, Mapping):
        return {key: image_slice(part, start, stop) for key, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(image_slice(part, start, stop) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(image_slice(part, start, stop) for part in batch)
    return batch[start:stop]


def _counts(batch: Any) -> list[int]:
    if _is_constant(batch):
        return []
    if isinstance(batch, Mapping):
        return [count for part in batch.values() for count in _counts(part)]
    if isinstance(batch, tuple | list):
        return [count for part in batch for count in _counts(part)]
    if hasattr(batch, "__len__") and hasattr(batch, "__getitem__"):
        return [len(batch)]
    raise BadBatch(
        f"a batch has a part of type {type(batch).__name__}, which has no slices.",
        "give a tensor, a tuple or dict of tensors with one leading dimension, or an object with `__len__` and slices.",
    )


def _is_constant(part: Any) -> bool:
    if isinstance(part, Tensor):
        return part.ndim == 0
    return part is None or isinstance(part, bool | int | float | complex | str | bytes)
