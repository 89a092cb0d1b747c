"""Writing a packed store (data/store.py says what it holds): the array, the index, and last the manifest, which commits them."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from anchored.data.frames import VERSION
from anchored.data.store import FILES
from anchored.errors import InputError
from anchored.files import disk_failure, file_digest, replacing, write_json, write_parquet
from anchored.plan.preprocessing import Storage
from anchored.preparation.packing import Packed, move, pack
from anchored.readers.decode import Decoded


class Layer(Protocol):
    """Images (N, H, W, C) uint8, one after the other: an array, or a folder that decodes them as they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    def __len__(self) -> int:
        """N."""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Images (H, W, C)."""


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
