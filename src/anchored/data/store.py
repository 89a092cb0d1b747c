"""The packed store: one memory-mapped uint8 array, a parquet index, and a manifest with digests and group counts.

    results/data/<dataset>/images.npy      (N, H, W, C) uint8; the manifest names which channels are which layer
                           index.parquet   one line an image: row, and for labelled data split, draw, y, a, group
                           manifest.json   digests, shape, layers, group counts, sources; written last, so it commits the rest

Images that come from files can be stored compressed (frames.py). The array is then (bytes,), the frames one after the other; the
index has a column `frame_end`, and the manifest names the `storage`.

Layers of a bank: image (3), mask (1), background (3). A background swap then reads one row, and every dataset has the same
three files, which is what both engines declare.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from anchored.data.frames import Frames
from anchored.errors import InputError
from anchored.files import disk_failure, file_digest, read_json

FILES = ("images.npy", "index.parquet", "manifest.json")
# Above this size only the length of the array is checked on opening: hashing would cost more than the step.
_DIGEST_LIMIT = 1 << 30


class Images(Protocol):
    """Images (N, H, W, C) uint8 that are read when they are indexed: a memory map, or frames that are decompressed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]:
        """The images of some rows."""


@dataclass(frozen=True)
class Store:
    """An opened store. Images are views of the memory map or of its frames: nothing is read before it is used."""

    name: str
    packed: Images
    index: pl.DataFrame
    manifest: dict[str, Any]

    def layer(self, name: str) -> Images:
        """The (N, H, W, C) layer `name`.

        Raises:
            InputError: the store has no such layer.
        """
        if name not in self.manifest["layers"]:
            raise InputError(
                f"dataset '{self.name}' has no layer '{name}' (it has {', '.join(self.manifest['layers'])}).",
                "a background swap needs a bank with masks: set views.background_swap to 0, or use another bank.",
            )
        start, stop = self.manifest["layers"][name]
        return self.packed[..., start:stop] if isinstance(self.packed, np.ndarray) else self.packed

    def rows(self, split: str, draw: int) -> NDArray[np.int64]:
        """Row numbers of a split in a draw; shared splits belong to every draw."""
        chosen = self.index.filter((pl.col("split") == split) & pl.col("draw").is_in([draw, -1]))
        if chosen.is_empty():
            raise InputError(f"dataset '{self.name}' has no images of split '{split}', draw {draw}.")
        return chosen["row"].to_numpy().astype(np.int64)

    @property
    def classes(self) -> int:
        """Number of classes of a labelled dataset."""
        return int(self.index["y"].max()) + 1  # type: ignore[arg-type]

    def column(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values of an index column at `rows`."""
        return self.index[name].to_numpy()[rows].astype(np.int64)


def open_store(folder: Path) -> Store:
    """Opens a store and checks it.

    Raises:
        InputError: a file is missing, truncated, or differs from the manifest's digest.
    """
    name = folder.name
    command = f"anchored prepare {name}"
    manifest = read_json(folder / "manifest.json", made_by=command)
    if not (isinstance(manifest, dict) and {"shape", "layers", "digests"} <= manifest.keys()):
        raise InputError(f"{folder / 'manifest.json'} is no manifest of a store.", f"run `{command} --force`.")
    images = folder / "images.npy"
    for file in FILES[:2]:
        path = folder / file
        if not path.exists():
            raise InputError(f"{path} is missing.", f"run `{command} --force`.")
        if path.stat().st_size < _DIGEST_LIMIT and file_digest(path) != manifest["digests"][file]:
            raise InputError(f"{path} differs from its manifest (truncated or changed).", f"run `{command} --force`.")
    try:
        packed = np.load(images, mmap_mode="r", allow_pickle=False)
        index = pl.read_parquet(folder / "index.parquet")
    except OSError as error:
        raise disk_failure(images, error) from error
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{folder} holds no readable store: {error}.", f"run `{command} --force`.") from error
    found = _images(packed, index, manifest, name)
    if found is None or len(index) != len(found):
        raise InputError(f"{folder} is inconsistent: {packed.shape} images, {len(index)} index lines.",
                         f"run `{command} --force`.")  # fmt: skip
    return Store(name, found, index, manifest)


def _images(packed: NDArray[np.uint8], index: pl.DataFrame, manifest: Mapping[str, Any], name: str) -> Images | None:
    """The images of a store's array; None where it does not have the manifest's shape."""
    shape = tuple(manifest["shape"])
    if "storage" not in manifest:
        return packed if packed.shape == shape else None
    if manifest["storage"].get("kind") != "zstd" or "frame_end" not in index.columns or len(index) != shape[0]:
        return None
    ends = index["frame_end"].to_numpy()
    return Frames(packed, ends, shape, where=name) if packed.shape == (ends[-1],) else None
