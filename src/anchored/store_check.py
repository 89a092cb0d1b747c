"""`anchored prepare NAME --check`: does what lies there still give the store that was built? Writes nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from anchored.data.store import open_store
from anchored.errors import InputError
from anchored.files import file_digest, read_json
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.preparation.step import build

_SHOWN = 3


def check(plan: Plan, name: str, paths: Paths) -> list[str]:
    """Compares the store of the dataset `name` with its manifest, and with what its sources give today.

    Images in files are compared by the digests of their encoded bytes; they are not decoded. Embedded datasets are drawn again.

    Returns:
        sentences on what was compared and found equal.

    Raises:
        InputError: something differs, is missing or cannot be read; says what, with counts and the first offenders.
    """
    entry = lookup(plan, "datasets", name)
    folder, command = paths.data(name), f"anchored prepare {name}"
    manifest = read_json(folder / "manifest.json", made_by=command)
    found = _stored_files(folder, manifest)
    if not found:
        index = pl.read_parquet(folder / "index.parquet")
        layers, expected, facts = build(entry, paths.root)
        found = [*_shape(manifest, layers), *_facts(manifest, facts), *_index(index, expected)]
        drawn = {layer: values for layer, values in layers.items() if isinstance(values, np.ndarray)}
        if not found:
            found = [f"layer {layer} is drawn otherwise" for layer, values in drawn.items()
                     if not np.array_equal(open_store(folder).layer(layer)[:], values)]  # fmt: skip
    if found:
        raise InputError(
            f"dataset '{name}': {'; '.join(found)}.",
            f"restore what was there, or run `{command} --force` to build it from what is there.",
        )
    sources = "layers drawn again"
    if not drawn:
        sources = f"digests of {len(expected)} encoded images in {paths.root / entry.get('of', entry)['folder']}"
    if not drawn and "sha256" not in index.columns:
        sources = "names of the images; the store has no digests of them"
    return [
        f"{folder}: {', '.join(manifest['digests'])} are as the manifest says (SHA-256)",
        f"index: {len(index)} lines{''.join(f', {name}' for name in expected.columns if name not in ('row', 'path', 'sha256'))}",
        f"sources: the same {sources}",
        f"manifest: the same {', '.join(facts)}",
    ]


def _stored_files(folder: Path, manifest: Any) -> list[str]:
    """Files that the manifest's digests do not fit, of any size: opening a store hashes only small ones."""
    if not (isinstance(manifest, dict) and isinstance(manifest.get("digests"), dict)):
        return [f"{folder / 'manifest.json'} is no manifest of a store"]
    found = []
    for file, digest in manifest["digests"].items():
        path = folder / file
        if not path.is_file():
            found.append(f"{path} is missing")
        elif file_digest(path) != digest:
            found.append(f"{path} differs from its manifest")
    return found


def _shape(manifest: Mapping[str, Any], layers: Mapping[str, Any]) -> list[str]:
    count, height, width = next(iter(layers.values())).shape[:3]
    expected = [count, height, width, sum(layer.shape[-1] for layer in layers.values())]
    return [] if manifest["shape"] == expected else [f"the store has the shape {manifest['shape']}, the plan gives {expected}"]


def _facts(manifest: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    plain = json.loads(json.dumps(facts))
    return [
        f"{key} was {json.dumps(manifest.get(key), ensure_ascii=False)}, is {json.dumps(value, ensure_ascii=False)}"
        for key, value in plain.items()
        if manifest.get(key) != value
    ]


def _index(stored: pl.DataFrame, expected: pl.DataFrame) -> list[str]:
    if len(stored) != len(expected):
        return [f"the index has {len(stored)} lines, the sources give {len(expected)}"]
    found = []
    for name in expected.columns:
        if name not in stored.columns and name in ("path", "sha256"):
            continue  # a store of a version that did not keep them
        if name not in stored.columns:
            found.append(f"the index has no column {name}")
            continue
        differing = expected.filter(expected[name].ne_missing(stored[name].cast(expected[name].dtype)))
        if len(differing):
            label = "path" if "path" in expected.columns else "row"
            first = ", ".join(map(str, differing[label].head(_SHOWN)))
            found.append(f"{name} differs for {len(differing)} of {len(expected)} images (first {first})")
    return found
