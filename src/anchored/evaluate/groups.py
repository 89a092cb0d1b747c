"""The groups of a data set: how many, what they are called, how many images each split has of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anchored.errors import InputError


@dataclass(frozen=True)
class Groups:
    """Names and sizes of groups 0, 1, ..., and where their images come from.

    Args:
        names: of the groups.
        train_sizes: training images of each.
        val_sizes: validation images of each.
        source: what the manifest says of where the images come from; empty where it says nothing.
        preprocessing: likewise of how they were cut.
    """

    names: tuple[str, ...]
    train_sizes: tuple[int, ...]
    val_sizes: tuple[int, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


def read_groups(manifest: Mapping[str, Any], dataset: str) -> Groups:
    """The groups in a data set's manifest.

    Raises:
        InputError: the manifest lacks them, or no group has training images.
    """
    sizes = manifest.get("groups", {})
    names = manifest.get("group_names", {})
    known = {int(key) for split in sizes.values() for key in split} | {int(key) for key in names}
    train, val = ({int(key): int(size) for key, size in sizes.get(split, {}).items()} for split in ("train", "val"))
    if not sum(train.values()):
        raise InputError(
            f"the manifest of data set {dataset} gives no training images by group (groups.train).",
            f"run `anchored prepare {dataset}`.",
        )
    count = max(known) + 1
    return Groups(
        tuple(str(names.get(str(group), f"group {group}")) for group in range(count)),
        tuple(train.get(group, 0) for group in range(count)),
        tuple(val.get(group, 0) for group in range(count)),
        manifest.get("source", {}),
        manifest.get("preprocessing", {}),
    )
