"""How many images a dataset of a plan has, before it is prepared where that is known, else from its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anchored.errors import ConfigError
from anchored.files import read_json
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.readers.published import BLOND_MALE, WATERBIRDS

_PUBLISHED = {"waterbirds": WATERBIRDS, "celeba": BLOND_MALE}
# What is left of photographs that are stored compressed: benchmarks/decoding.md.
_SHARE = {"raw": 1.0, "zstd": 0.4}

_IMAGE, _MASK, _BACKGROUND = 3, 1, 3


@dataclass(frozen=True)
class Images:
    """The images of a packed store.

    Attributes:
        stored: number of images in the store, all draws together.
        splits: images of each split that one draw sees; empty for a bank.
        side: of the stored square, in pixels.
        channels: bytes of a pixel.
        classes: number of classes.
        share: what is left of the stored bytes where they are compressed.
    """

    stored: int
    splits: Mapping[str, int]
    side: int
    channels: int
    classes: int = 2
    share: float = 1.0

    @property
    def bytes_each(self) -> int:
        """Bytes of an image."""
        return self.side**2 * self.channels

    @property
    def disk_bytes(self) -> int:
        """Bytes of all stored images."""
        return round(self.stored * self.bytes_each * self.share)


def dataset_images(plan: Plan, name: str, paths: Paths) -> Images:
    """The images of the dataset `name` of the plan.

    Raises:
        ConfigError: their number is known only after `anchored prepare`, which has not run.
    """
    entry = lookup(plan, "datasets", name)
    match entry["reader"]:
        case "digitscenes":
            splits = {split: entry[split] for split in ("train", "val", "test", "balanced")}
            stored = entry["draws"] * (entry["train"] + entry["val"]) + entry["test"] + entry["balanced"]
            return Images(stored, splits, entry["scene"]["size"], _IMAGE)
        case "digitscenes-bank":
            return Images(entry["size"], {}, entry["scenes"]["scene"]["size"], _IMAGE + _MASK + _BACKGROUND)
    share = _SHARE[entry["storage"]]
    if entry.get("limit"):
        return Images(entry["limit"], {}, entry["size"], _IMAGE, share=share)
    splits = _published(entry.get("of", entry))
    if not splits:
        return _prepared(name, entry, paths)
    if "of" in entry:
        return Images(splits["train"], {}, entry["size"], _IMAGE, share=share)
    return Images(sum(splits.values()), splits, entry["size"], _IMAGE, share=share)


def _published(entry: Mapping[str, Any]) -> dict[str, int]:
    """Images of each split that a reader insists on; empty where it takes any number."""
    if not entry.get("published"):
        return {}
    return {split: sum(known.groups) for split, known in _PUBLISHED[entry["reader"]].items()}


def _prepared(name: str, entry: Mapping[str, Any], paths: Paths) -> Images:
    path = paths.data(name) / "manifest.json"
    if not path.exists():
        raise ConfigError(
            f"how many images dataset '{name}' has (reader {entry['reader']}) is known once it is prepared: {path} is missing.",
            f"run `anchored prepare {name}` first.",
        )
    manifest = read_json(path, made_by=f"anchored prepare {name}")
    stored, side, _, channels = manifest["shape"]
    groups: Mapping[str, Mapping[str, int]] = manifest["groups"]
    splits = {split: sum(sizes.values()) for split, sizes in groups.items()}
    return Images(stored, splits, side, channels, len(manifest.get("classes", "01")), _SHARE[entry["storage"]])
