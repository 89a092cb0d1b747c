"""The step `prepare`: from raw images to a packed store."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from anchored.data import digitscenes, folder
from anchored.data.store import Layer, write_store
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.record import planned_step


def prepare(plan: Plan, name: str, paths: Paths, *, force: bool = False) -> None:
    """Builds the dataset `name` of the plan into `results/data/<name>/`."""
    entry = lookup(plan, "datasets", name)
    with planned_step(plan, "datasets", name, paths).run(force=force) as running:
        if running:
            work = paths.work(f"prepare-{name}")
            if force:
                shutil.rmtree(work, ignore_errors=True)
            storage = entry.get("storage", "raw")
            manifest = write_store(paths.data(name), *_build(entry, paths.root), work=work, storage=storage)
            running.measure(images=manifest["shape"][0], groups=manifest["groups"])


def _build(entry: dict[str, Any], root: Path) -> tuple[dict[str, Layer], pl.DataFrame, dict[str, Any]]:
    """Layers, index and facts of a plan entry."""
    facts = {"reader": entry["reader"], "labelled": entry["labelled"]}
    images: Layer
    match entry["reader"]:
        case "digitscenes-bank":
            scenes = digitscenes.build_bank(entry)
            layers: dict[str, Layer] = {"image": scenes.images, "mask": scenes.masks, "background": scenes.backgrounds}
            return layers, _rows(len(scenes.images)), facts | {"sources": digitscenes.SOURCES}
        case "images":
            images = folder.read_bank(entry, root)
            return {"image": images}, _rows(len(images)), facts
        case "folder":
            images, columns = folder.read_labelled(entry, root)
            classes, attributes = int(columns["y"].max()) + 1, int(columns["a"].max()) + 1
            facts |= {"group_names": folder.group_names(classes, attributes)}
        case _:
            images, columns = digitscenes.build_labelled(entry)
            attributes = 2
            facts |= {"sources": digitscenes.SOURCES, "group_names": digitscenes.group_names(entry)}
    index = _rows(len(images)).with_columns(**columns)
    return {"image": images}, index.with_columns(
        pl.col("draw", "y", "a").cast(pl.Int16),
        pl.col("source").cast(pl.Int32),
        (attributes * pl.col("y") + pl.col("a")).cast(pl.Int16).alias("group"),
    ), facts  # fmt: skip


def _rows(count: int) -> pl.DataFrame:
    return pl.DataFrame({"row": np.arange(count, dtype=np.int32)})
