"""The packed store: one memory-mapped uint8 array, a parquet index, and a manifest with digests and group counts.

    results/data/<dataset>/images.npy      (N, H, W, C) uint8; the manifest names which channels are which layer
                           index.parquet   one line an image: row, and for labelled data split, draw, y, a, group
                           manifest.json   digests, shape, layers, group counts, sources; written last, so it commits the rest

Images that come from files can be stored compressed (frames.py). The array is then (bytes,), the frames one after the other; the
index has a column `frame_end`, and the manifest names the `storage`.

Layers of a bank: image (3), mask (1), background (3). A background swap then reads one row, and every dataset has the same
three files, which is what both engines declare.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from anchored.data.decode import Decoded
from anchored.data.frames import VERSION, Frames
from anchored.data.packing import Packed, move, pack
from anchored.errors import InputError
from anchored.files import disk_failure, file_digest, read_json, replacing, write_json, write_parquet
from anchored.plan.preprocessing import Storage

FILES = ("images.npy", "index.parquet", "manifest.json")
# Above this size only the length of the array is checked on opening: hashing would cost more than the step.
_DIGEST_LIMIT = 1 << 30


class Layer(Protocol):
    """Images (N, H, W, C) uint8, one after the other: an array, or a folder that decodes them as they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    def __len__(self) -> int:
        """N."""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Images (H, W, C)."""


class Images(Protocol):
    """Images (N, H, W, C) uint8 that are read when they are indexed: a memory map, or frames that are decompressed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]:
        """The images of some rows."""


def write_store(
    folder: Path,
    layers: Mapping[str, Layer],
    index: pl.DataFrame,
    facts: Mapping[str, Any],
    *,
    work: Path | None = None,
    storage: Storage = "raw",
    digest: Callable[[Path], str] = file_digest,
) -> dict[str, Any]:
    """Writes a store and returns its manifest; of layers that are decoded on the way it holds a few images at a time.

    Args:
        folder: where to.
        layers: images (N, H, W, C_layer), in the order in which their channels are packed.
        index: one line an image. For images of files it gets the column `sha256`, of their bytes, or is compared with it.
        facts: further entries of the manifest (sources, group names, seed, ...).
        work: where images of files are kept that an interrupted run has decoded; gone after success. None: they are not kept.
        storage: how images of files are written.
        digest: gives the SHA-256 of a file; one that remembers saves whoever asks again from reading it again.

    Raises:
        InputError: images cannot be read, or changed meanwhile.
        EnvironmentFailure: the disk is full or not writable.
    """
    channels, start = {}, 0
    for name, layer in layers.items():
        channels[name] = [start, start + layer.shape[-1]]
        start += layer.shape[-1]
    shape = (*next(iter(layers.values())).shape[:3], start)
    (first, *others) = layers.values()
    if isinstance(first, Decoded) and not others:
        index, written = _write_files(folder, first, index, work, storage)
        facts = {**facts, **written}
    else:
        _write_arrays(folder / "images.npy", layers, shape)
    write_parquet(folder / "index.parquet", index)
    manifest = {
        "schema": 1,
        **facts,
        "shape": list(shape),
        "layers": channels,
        "groups": group_counts(index),
        "digests": {name: digest(folder / name) for name in FILES[:2]},
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def _write_arrays(path: Path, layers: Mapping[str, Layer], shape: tuple[int, ...]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        # Not write_array: where the disk is full, its tofile() raises an OSError that does not say so.
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for image in zip(*layers.values(), strict=True):
            stream.write(np.concatenate(image, axis=-1).data)
        _forget_manifest(path.parent)


def _forget_manifest(folder: Path) -> None:
    """The old manifest would vouch for the new images beside the old index, if the process ends between the two."""
    (folder / "manifest.json").unlink(missing_ok=True)


def _write_files(
    folder: Path, images: Decoded, index: pl.DataFrame, work: Path | None, storage: Storage
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Packs images of files; returns the index with what is known of them, and what the manifest says of the storage."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_failure(folder, error) from error
    with nullcontext(work) if work else TemporaryDirectory(prefix=".", dir=folder) as place:
        known = index["sha256"].to_list() if "sha256" in index.columns else None
        packed = pack(images, Path(place), storage, known)
        index = _with_digests(index, packed, images)
        _forget_manifest(folder)
        move(packed.path, folder / "images.npy")
    if work:
        shutil.rmtree(work, ignore_errors=True)
    if storage == "raw":
        return index, {}
    return index.with_columns(frame_end=pl.Series(packed.ends)), {"storage": {"kind": storage, "library": VERSION}}


def _with_digests(index: pl.DataFrame, packed: Packed, images: Decoded) -> pl.DataFrame:
    found = pl.Series(packed.digests, dtype=pl.String)
    if "sha256" not in index.columns:
        return index.with_columns(sha256=found)
    changed = (index["sha256"] != found).arg_true().to_list()
    if changed:
        first = ", ".join(images.encoded.names[number] for number in changed[:3])
        raise InputError(f"{images.encoded.where}: {len(changed)} images changed while they were read: {first}.",
                         "run the same command again.")  # fmt: skip
    return index


def group_counts(index: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Images of each group in each split, of the first draw where a split has several."""
    if "group" not in index.columns:
        return {}
    counts: dict[str, dict[str, int]] = {}
    for split in sorted(index["split"].unique()):
        part = index.filter(pl.col("split") == split)
        part = part.filter(pl.col("draw") == part["draw"].min())
        sizes = part.group_by("group").len().sort("group")
        counts[split] = {str(group): size for group, size in sizes.iter_rows()}
    return counts


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
