"""The step `prepare`: from raw images to a packed store."""

from typing import Any

import numpy as np
import polars as pl

from anchored.data import digitscenes
from anchored.data.store import write_store
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.record import planned_step


def prepare(plan: Plan, name: str, paths: Paths, *, force: bool = False) -> None:
    """Builds the dataset `name` of the plan into `results/data/<name>/`."""
    entry = lookup(plan, "datasets", name)
    with planned_step(plan, "datasets", name, paths).run(force=force) as running:
        if running:
            manifest = write_store(paths.data(name), *_build(entry))
            running.measure(images=manifest["shape"][0], groups=manifest["groups"])


def _build(entry: dict[str, Any]) -> tuple[dict[str, Any], pl.DataFrame, dict[str, Any]]:
    """Layers, index and facts of a plan entry."""
    facts = {"reader": entry["reader"], "sources": digitscenes.SOURCES, "labelled": entry["labelled"]}
    if entry["reader"] == "digitscenes-bank":
        scenes = digitscenes.build_bank(entry)
        layers = {"image": scenes.images, "mask": scenes.masks, "background": scenes.backgrounds}
        return layers, pl.DataFrame({"row": np.arange(len(scenes.images), dtype=np.int32)}), facts
    images, columns = digitscenes.build_labelled(entry)
    index = pl.DataFrame({"row": np.arange(len(images), dtype=np.int32), **columns}).with_columns(
        pl.col("draw", "y", "a").cast(pl.Int16),
        pl.col("source").cast(pl.Int32),
        (2 * pl.col("y") + pl.col("a")).cast(pl.Int16).alias("group"),
    )
    return {"image": images}, index, facts | {"group_names": digitscenes.group_names(entry)}
