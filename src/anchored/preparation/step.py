"""The step `prepare`: from raw images to a packed store."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.preparation import digitscenes
from anchored.preparation.writing import Layer, write_store
from anchored.readers.catalogue import READERS
from anchored.readers.encoded import digests
from anchored.readers.origin import require_listed
from anchored.readers.reading import histogram_lines
from anchored.record import planned_step

log = logging.getLogger("anchored")

Built = tuple[dict[str, Layer], pl.DataFrame, dict[str, Any]]


def prepare(plan: Plan, name: str, paths: Paths, *, force: bool = False) -> None:
    """Builds the dataset `name` of the plan into `results/data/<name>/`."""
    entry = lookup(plan, "datasets", name)
    with planned_step(plan, "datasets", name, paths).run(force=force) as running:
        if running:
            work = paths.work(f"prepare-{name}")
            if force:
                shutil.rmtree(work, ignore_errors=True)
            storage = entry.get("storage", "raw")
            built = build(entry, paths.root)
            manifest = write_store(paths.data(name), *built, work=work, storage=storage, digest=running.digest)
            running.measure(images=manifest["shape"][0], groups=manifest["groups"])


def build(entry: Mapping[str, Any], root: Path) -> Built:
    """Layers, index and facts of a plan entry. Images in files are not decoded before the layers are iterated over."""
    facts = {"reader": entry["reader"], "labelled": entry["labelled"]}
    if entry["reader"] in READERS:
        return _from_files(entry, root, facts)
    if entry["reader"] == "digitscenes-bank":
        scenes = digitscenes.build_bank(entry)
        layers: dict[str, Layer] = {"image": scenes.images, "mask": scenes.masks, "background": scenes.backgrounds}
        return layers, _rows(len(scenes.images)), facts | digitscenes.FACTS
    images, columns = digitscenes.build_labelled(entry)
    index = _rows(len(images)).with_columns(**columns).with_columns(
        pl.col("draw", "y", "a").cast(pl.Int16),
        pl.col("source").cast(pl.Int32),
        (2 * pl.col("y") + pl.col("a")).cast(pl.Int16).alias("group"),
    )  # fmt: skip
    return {"image": images}, index, facts | digitscenes.FACTS | {"group_names": digitscenes.group_names(entry)}


def _from_files(entry: Mapping[str, Any], root: Path, facts: dict[str, Any]) -> Built:
    reading = READERS[entry["reader"]](entry, root)
    images, columns = reading.images, reading.columns
    files = {"path": pl.Series(images.names, dtype=pl.String), "sha256": pl.Series(digests(images), dtype=pl.String)}
    index = pl.concat([_rows(len(images.names)), columns], how="horizontal").with_columns(**files)
    require_listed(images.where, dict(index.select("path", "sha256").iter_rows()))
    if "group" in index.columns:
        for line in histogram_lines(index, reading.facts["group_names"]):
            log.info("%s", line)
    if "split" in index.columns:
        _warn_of_copies(index)
    return {"image": reading.decoded(entry)}, index, facts | reading.facts


def _warn_of_copies(index: pl.DataFrame) -> None:
    """An image of the test split that is also trained on makes every accuracy a little too good."""
    trained = index.filter(pl.col("split") == "train")["sha256"]
    copies = index.filter(pl.col("split") != "train", pl.col("sha256").is_in(trained.implode()))
    if len(copies):
        log.warning("%d images of val or test are byte for byte in train, too: %s", len(copies), ", ".join(copies["path"].head(3)))


def _rows(count: int) -> pl.DataFrame:
    return pl.DataFrame({"row": np.arange(count, dtype=np.int32)})
