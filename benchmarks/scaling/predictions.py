"""Load test: results of fine-tuning jobs that never ran. Labels and logits are drawn at random; files, columns and records are
written by the code that writes real ones. No number in them says anything about a method.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import safetensors.numpy
from numpy.typing import NDArray

from anchored import record
from anchored.data.store import Store
from anchored.files import write_bytes, write_json, write_parquet
from anchored.finetune.predictions import evaluation_rows, prediction_frame
from anchored.paths import Paths
from anchored.plan.load import Plan
from anchored.record import planned_step

# Images of group 2 y + a in each split of Waterbirds (Sagawa et al. 2020).
GROUPS = {"train": (3498, 184, 56, 1057), "val": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)}
NAMES = ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")
_LAYERS = 12


def write_study(plan: Plan, paths: Paths) -> None:
    """Writes all that `anchored evaluate` and `anchored tables` read of a plan on Waterbirds, below `paths.root`."""
    store = _store()
    for dataset in plan["datasets"]:
        write_json(paths.data(dataset) / "manifest.json", store.manifest)
    for backbone in plan["backbones"]:
        write_bytes(paths.backbone(backbone) / "model.safetensors", _tensors(0, backbone))
    for number, fim in enumerate(plan["fims"]):
        write_bytes(paths.fim(fim) / "fim.safetensors", _tensors(number + 1, fim))
    # Git is asked once, not by each of thousands of records that this one process writes.
    with patch.object(record, "_commit", cache(record._commit)):
        _write_runs(plan, paths, store)


def _write_runs(plan: Plan, paths: Paths, store: Store) -> None:
    for kind in ("baseline", "anchored"):
        for job, entry in plan[kind].items():
            with planned_step(plan, kind, job, paths).run() as running:
                if running:
                    _write_run(paths.run(job), {cell: plan["cells"][cell] for cell in entry["cells"]}, store)
                    running.device = "none: a load test"
                    running.measure(cells=len(entry["cells"]))


def _store() -> Store:
    """Waterbirds without its images."""
    rows: dict[str, list[Any]] = {"split": [], "y": [], "a": [], "group": []}
    for split, sizes in GROUPS.items():
        for group, size in enumerate(sizes):
            rows["split"] += [split] * size
            rows["y"] += [group // 2] * size
            rows["a"] += [group % 2] * size
            rows["group"] += [group] * size
    frame = pl.DataFrame(rows).sample(fraction=1.0, shuffle=True, seed=0)
    index = frame.with_columns(pl.int_range(len(frame)).alias("row"), pl.lit(-1).alias("draw"))
    counts = {split: {str(group): size for group, size in enumerate(sizes)} for split, sizes in GROUPS.items()}
    names = {str(group): name for group, name in enumerate(NAMES)}
    manifest = {"schema": 1, "labelled": True, "groups": counts, "group_names": names, "source": {"name": "load test"}}
    return Store("waterbirds", np.zeros((len(index), 1, 1, 1), np.uint8), index, manifest)


def _write_run(folder: Path, cells: Mapping[str, Mapping[str, Any]], store: Store) -> None:
    frames = list(_frames(cells, store))
    history = [{"cell": name, "epoch": cell["training"]["epochs"], "train_loss": 0.1, "displacement": 1.0}
               for name, cell in cells.items()]  # fmt: skip
    write_parquet(folder / "predictions.parquet", pl.concat(frames))
    write_parquet(folder / "history.parquet", pl.DataFrame(history).cast({"epoch": pl.Int16}))
    write_bytes(folder / "models.safetensors", safetensors.numpy.save({}, metadata={"format": "anchored-models-1"}))


def _frames(cells: Mapping[str, Mapping[str, Any]], store: Store) -> Iterator[pl.DataFrame]:
    for name, cell in cells.items():
        rng = np.random.default_rng([cell["seed"], sum(name.encode())])
        for split, rows in evaluation_rows(store, cell).items():
            yield prediction_frame(name, cell["training"]["epochs"], split, rows, _logits(store, rows, rng), store)


def _logits(store: Store, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, 2): right more often where class and background agree, by a margin that differs between cells."""
    y, a = store.column("y", rows), store.column("a", rows)
    margin = 1.0 + 0.5 * rng.random() + np.where(y == a, 1.0, -0.5 * rng.random())
    sign = np.where(y == 1, 1.0, -1.0)
    score = sign * margin + rng.normal(size=len(rows))
    return np.stack([-score, score], axis=1).astype(np.float32)


def _tensors(seed: int, name: str) -> bytes:
    rng = np.random.default_rng(seed)
    layers = {f"blocks.{layer}.mlp.weight": rng.random((16, 16), np.float32) for layer in range(_LAYERS)}
    return safetensors.numpy.save(layers, metadata={"load-test": name})
