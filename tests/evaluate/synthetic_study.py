"""A small plan and invented predictions for it: the generator behind the tests of evaluation and report."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from anchored.paths import Paths

GRIDS: dict[str, dict[str, list[float]]] = {
    "erm": {"lr": [1e-5, 1e-4, 1e-3]},
    "linear-probe": {"c": [0.01, 0.1, 1.0]},
    "freeze": {"stages": [1, 2], "lr": [1e-3, 4e-3]},
    "l2sp": {"lr": [1e-3], "strength": [0.1, 1.0, 10.0]},
    "ewc": {"lr": [1e-3], "strength": [0.1, 1.0, 10.0]},
    "ewc-shuffled": {"lr": [1e-3], "strength": [0.1, 1.0, 10.0]},
}
TRAIN_SIZES = {"0": 380, "1": 20, "2": 20, "3": 380}
NAMES = {"0": "loops on grass", "1": "loops on gravel", "2": "strokes on grass", "3": "strokes on gravel"}


def make_plan(*, backbones: int = 2, replicates: int = 3, draws: int = 200, grids: Any = None) -> dict[str, Any]:
    """A plan with one experiment `demo`; every (backbone, arm) is a job."""
    grids = grids or GRIDS
    points = {arm: _points(grid) for arm, grid in grids.items()}
    plan: dict[str, Any] = {
        "schema": 1, "name": "mini", "seed": 7, "threads": 1, "baseline": {}, "anchored": {}, "cells": {},
        "fims": {f"dino-{copy}": {"backbone": f"tiny-{copy}"} for copy in range(1, backbones + 1)},
        "experiments": {
            "demo": {
                "dataset": "scenes", "backbone": "tiny", "title": "Scenes & a tiny_net",
                "note": "The premise is built in (100 %).",
                "baseline": "erm", "reference_lr": 1e-3, "rules": ["val-wga", "val-average", "oracle-test-wga"],
                "bootstrap": draws, "contrasts": [["ewc", other] for other in ("l2sp", "freeze") if other in grids],
                "arms": {arm: {"grid": grids[arm], "configurations": list(points[arm])} for arm in grids},
            }
        },
    }  # fmt: skip
    for arm in grids:
        for copy in range(1, backbones + 1):
            job: dict[str, Any] = {"cells": []}
            for label, hyper in points[arm].items():
                for replicate in range(replicates):
                    name = f"demo-tiny-{copy}-{arm}-{label}-r{replicate}"
                    plan["cells"][name] = {
                        "experiment": "demo", "dataset": "scenes", "backbone": f"tiny-{copy}", "family": "tiny",
                        "arm": arm,
                        "configuration": label, "hyper": hyper, "replicate": replicate, "seed": 100 * copy + replicate,
                        "fim": f"dino-{copy}" if arm.startswith("ewc") else None,
                    }  # fmt: skip
                    job["cells"].append(name)
            plan["anchored" if arm.startswith("ewc") else "baseline"][f"demo-tiny-{copy}-{arm}-1"] = job
    return plan


def make_predictions(
    plan: dict[str, Any], job: str, *, val: int = 80, test: int = 160, epochs: tuple[int, ...] = (8,)
) -> pl.DataFrame:
    """Predictions of all cells of a job: minority groups (1 and 2) do worse for strong rates, better for strong
    anchors."""
    entry = plan["baseline"].get(job) or plan["anchored"][job]
    return pl.concat(
        [
            _cell_frame(plan["cells"][name], name, {"val": val, "test": test}, epoch)
            for name in entry["cells"]
            for epoch in epochs
        ]
    )


def write_study(root: Path, plan: dict[str, Any], *, fisher: bool = True, **sizes: Any) -> Paths:
    """Writes the plan's data manifest, predictions, histories, records and Fisher files below `root`."""
    paths = Paths(root)
    manifest = {
        "groups": {"train": TRAIN_SIZES, "val": dict.fromkeys(NAMES, 20), "test": dict.fromkeys(NAMES, 40)},
        "group_names": NAMES,
    }
    _write_json(paths.data("scenes") / "manifest.json", manifest)
    for job in [*plan["baseline"], *plan["anchored"]]:
        frame = make_predictions(plan, job, **sizes)
        paths.run(job).mkdir(parents=True, exist_ok=True)
        frame.write_parquet(paths.run(job) / "predictions.parquet")
        history = frame.select("cell", "epoch").unique(maintain_order=True).with_columns(
            displacement=pl.lit(0.5), train_loss=pl.lit(0.1), val_average=pl.lit(0.7)
        )  # fmt: skip
        history.write_parquet(paths.run(job) / "history.parquet")
        _write_json(
            paths.run(job) / "record.json",
            {"step": "finetune", "name": job, "code": {"version": "0.0.1", "commit": "abc"},
             "libraries": {"numpy": "2"},
             "device": "cpu", "wall_seconds": 1.5, "measurements": {"cells": 3}},
        )  # fmt: skip
    if fisher:
        for name in plan["fims"]:
            _write_fisher(paths.fim(name) / "fim.safetensors", name)
    return paths


def _points(grid: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    labels: dict[str, dict[str, float]] = {"": {}}
    for key, values in grid.items():
        labels = {
            f"{label}-{key[:2]}{str(value).replace('.', 'p').replace('e-', 'em')}".strip("-"): {**hyper, key: value}
            for label, hyper in labels.items() for value in values
        }  # fmt: skip
    return labels


def _cell_frame(cell: dict[str, Any], name: str, sizes: dict[str, int], epoch: int) -> pl.DataFrame:
    rng = np.random.default_rng(zlib.crc32(f"{name}{epoch}".encode()))
    hyper = cell["hyper"]
    pull = np.log10(1 + hyper.get("strength", {"linear-probe": 5.0, "freeze": 8.0}.get(cell["arm"], 0.0)))
    minority = np.clip(0.75 - 60 * hyper.get("lr", 1e-4) ** 0.75 + 0.3 * pull, 0.3, 0.78)
    parts = []
    for start, (split, size) in zip((0, 10_000), sizes.items(), strict=True):
        group = np.arange(size) % 4
        accuracy = np.where((group == 1) | (group == 2), minority, 0.85)
        right = rng.random(size) < accuracy
        y = group // 2
        parts.append(
            pl.DataFrame(
                {"cell": [name] * size, "epoch": np.full(size, epoch, np.int16), "split": [split] * size,
                 "row": np.arange(start, start + size, dtype=np.int32), "y": y.astype(np.int16),
                 "a": (group % 2).astype(np.int16),
                 "group": group.astype(np.int16), "prediction": np.where(right, y, 1 - y).astype(np.int16)}
            ).with_columns(logits=pl.lit([0.0, 1.0], dtype=pl.List(pl.Float32)))
        )  # fmt: skip
    return pl.concat(parts)


def _write_fisher(path: Path, name: str) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(zlib.crc32(name.encode()))
    shapes = {"conv1.weight": (16, 3, 3, 3), "bn1.weight": (16,), "bn1.bias": (16,)}
    for layer, (before, width) in enumerate([(16, 16), (16, 32), (32, 48), (48, 64)], start=1):
        for conv, inputs in (("conv1", before), ("conv2", width)):
            shapes[f"layer{layer}.0.{conv}.weight"] = (width, inputs, 3, 3)
            shapes[f"layer{layer}.0.bn{conv[-1]}.weight"] = shapes[f"layer{layer}.0.bn{conv[-1]}.bias"] = (width,)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: rng.lognormal(-8, 2, shape).astype(np.float32) for key, shape in shapes.items()}, path)


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
