"""The step `finetune`: the cells of a job one after the other, each resumable, then one folder of results.

Starting Python, torch and timm costs seconds; a job therefore holds several cells of an arm. The bytes of a cell do not
depend on the job it ran in: every cell starts from the stored anchor, and its seeds are its own.
"""

import copy
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import safetensors.torch
import torch
from torch import Tensor

from anchored.backbones.checkpoint import load_anchor
from anchored.data.store import Store, open_store
from anchored.device import choose_device, describe, limit_threads
from anchored.files import value_digest, write_bytes, write_parquet
from anchored.finetune.fixed_stages import FixedStages
from anchored.finetune.linear_probe import Features, probe_cell
from anchored.finetune.loop import Material, train_cell
from anchored.finetune.predictions import prediction_frame
from anchored.finetune.state import CellState
from anchored.fisher import load_fisher
from anchored.locks import exclusive, in_cluster_job
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup, lookup_run
from anchored.progress import Advance, progress
from anchored.record import Running, Step, code_digest, planned_step

_HISTORY = {"cell": pl.String, "epoch": pl.Int16}


def finetune(plan: Plan, name: str, paths: Paths, *, force: bool = False) -> None:
    """Runs the job or the single cell `name` of the plan into `results/runs/<name>/`."""
    cells = {cell: lookup(plan, "cells", cell) for cell in lookup_run(plan, name)}
    first = next(iter(cells.values()))
    with ExitStack() as locks:
        with run_step(plan, name, paths).run(force=force) as running:
            if not running:
                return
            limit_threads(first["threads"])
            device = choose_device()
            running.device = describe(device)
            for cell in cells:  # a job and one of its cells on its own would share the resume state
                locks.enter_context(exclusive(f"cell {cell}", paths, wait=in_cluster_job()))
            if force:
                _forget(cells, paths)
            material = _material(plan, first, paths, device)
            spent = _Spent()
            states = _run_cells(name, cells, material, paths, running, spent)
            _write(paths.run(name), cells, states, material.store)
            running.measure(cells=len(cells), epochs=sum(len(state.history) for state in states.values()))
            running.measure(epochs_before_a_restart=spent.epochs_before, cell_seconds=spent.cells, fit_seconds=spent.fits)
        _forget(cells, paths)  # not before the record vouches for the results: a kill in between would cost all epochs


@dataclass
class _Spent:
    """Seconds of each cell, and of probes on features that were there already; epochs that a killed process had done."""

    cells: list[float] = field(default_factory=list)
    fits: list[float] = field(default_factory=list)
    epochs_before: int = 0


def _forget(cells: Mapping[str, Any], paths: Paths) -> None:
    """Removes the resume state of cells."""
    for cell in cells:
        shutil.rmtree(paths.work(cell), ignore_errors=True)


def run_step(plan: Plan, name: str, paths: Paths) -> Step:
    """The frame of a job, or of a single cell, which is a job of one that no engine knows."""
    for kind in ("baseline", "anchored"):
        if name in plan[kind]:
            return planned_step(plan, kind, name, paths)
    cell = plan["cells"][name]
    job = {key: cell[key] for key in ("dataset", "backbone", "fim") if cell[key]}
    job |= {"cells": [name], "digest": value_digest([cell])}
    return planned_step({**plan, "baseline": {name: job}}, "baseline", name, paths)


def _material(plan: Plan, cell: Mapping[str, Any], paths: Paths, device: torch.device) -> Material:
    entry = lookup(plan, "backbones", cell["backbone"])
    path = paths.backbone(cell["backbone"]) / "model.safetensors"
    anchor, _ = load_anchor(path, entry, made_by=f"anchored pretrain {cell['backbone']}")
    fisher: Mapping[str, Tensor] | None = None
    if cell["fim"]:
        fisher = load_fisher(paths.fim(cell["fim"]) / "fim.safetensors", anchor)
    store = open_store(paths.data(cell["dataset"]))
    # A probe trains nothing, so it has no use for what fixed stages make.
    stages = cell["training"].get("frozen_stages") if cell["arm"] != "linear-probe" else None
    fixed = None if stages is None else FixedStages(lambda: copy.deepcopy(anchor), stages, store, entry, device)
    return Material(store, entry, lambda: copy.deepcopy(anchor), fisher, device, fixed)


def _run_cells(
    name: str, cells: Mapping[str, Any], material: Material, paths: Paths, running: Running, spent: _Spent
) -> dict[str, CellState]:
    code = code_digest("finetune")
    features: dict[int, Features] = {}
    states = {}
    total = sum(1 if cell["arm"] == "linear-probe" else cell["training"]["epochs"] for cell in cells.values())
    with progress(f"finetune {name}", total) as advance:
        for cell_name, cell in cells.items():
            key = value_digest({"cell": cell, "inputs": running.inputs, "code": code, "device": running.device})
            started = time.perf_counter()
            states[cell_name] = _run_cell(cell_name, cell, material, paths, key, features, advance, spent)
            spent.cells.append(round(time.perf_counter() - started, 3))
    return states


def _run_cell(
    name: str,
    cell: Mapping[str, Any],
    material: Material,
    paths: Paths,
    key: str,
    features: dict[int, Features],
    advance: Advance,
    spent: _Spent,
) -> CellState:
    if cell["arm"] == "linear-probe":
        ready, started = cell["draw"] in features, time.perf_counter()
        state = probe_cell(cell, material, key, features)
        if ready:
            spent.fits.append(round(time.perf_counter() - started, 3))
        advance(note=f"{cell['arm']} {cell['configuration']}")
        return state
    path: Path = paths.work(name) / "state.pt"
    state = CellState.load(path, key)
    advance(state.epoch)
    spent.epochs_before += state.epoch
    if state.finished:
        return state
    return train_cell(name, cell, material, state, path, lambda note: advance(note=note))


def _write(folder: Path, cells: Mapping[str, Any], states: Mapping[str, CellState], store: Store) -> None:
    """Predictions, history and models of all cells of a job."""
    frames, lines = [], []
    models: dict[str, Tensor] = {}
    for name, state in states.items():
        rows = {split: store.rows(split, cells[name]["draw"]) for split in ("val", "test")}
        for label, logits in state.logits.items():
            epoch, split = label.split("/")
            frames.append(prediction_frame(name, int(epoch), split, rows[split], logits.numpy(), store))
        lines += [{"cell": name, **line} for line in state.history]
        if cells[name]["training"]["save_models"]:
            models |= {f"{name}/{key}": value.contiguous() for key, value in state.network.items()}
    history = pl.DataFrame(lines, infer_schema_length=None) if lines else pl.DataFrame(schema=_HISTORY)
    write_parquet(folder / "predictions.parquet", pl.concat(frames))
    write_parquet(folder / "history.parquet", history.cast({"epoch": pl.Int16}))
    write_bytes(folder / "models.safetensors", safetensors.torch.save(models, metadata={"format": "anchored-models-1"}))
