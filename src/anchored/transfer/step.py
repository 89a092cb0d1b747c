"""The command `fim-transfer`: the cells of each FIM into results/transfer/FIM/, then a summary of all of them together."""

import logging
import shutil
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from anchored import __version__, steps
from anchored.device import choose_device, describe, limit_threads
from anchored.errors import InputError
from anchored.files import file_digest, read_json, value_digest, write_bytes, write_json, write_parquet, write_text
from anchored.locks import exclusive
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.plan.naming import derive_seed
from anchored.record import code_digest
from anchored.report.figures import draw
from anchored.transfer.figures import transfer_figure
from anchored.transfer.retention import Retention
from anchored.transfer.settings import TransferStudy
from anchored.transfer.study import run_cells
from anchored.transfer.summary import contrasts, readings
from anchored.transfer.tables import summary_csv, summary_markdown
from anchored.transfer.target import PHOTOGRAPHS, photograph_task

log = logging.getLogger("anchored")

# Steps whose code a cell runs too, and the modules of this folder that it runs. The others read its line, or are in its key as
# values.
_SHARED_CODE = ("fim", "finetune")
_OWN_CODE = ("neighbours", "retention", "study", "target")
_LIBRARIES = ("torch", "timm", "numpy", "polars", "scikit-image", "pillow")


def fim_transfer(
    plan: Plan, names: Sequence[str], paths: Paths, settings: TransferStudy, *, out: Path | None = None, force: bool = False
) -> None:
    """Runs the study of every FIM in `names` and writes the summary of all to `out`.

    Args:
        plan: the compiled plan.
        names: identities of FIMs.
        paths: the folder layout.
        settings: the grid.
        out: where summary and figure go; by default the folder of the FIM, or results/transfer/pooled for several.
        force: compute cells again even if they are up to date.
    """
    entries = [lookup(plan, "fims", name) for name in names]
    limit_threads(entries[0]["threads"])
    for name in names:
        _study(plan, name, paths, settings, force=force)
    cells = pl.concat([pl.read_parquet(folder(paths, name) / "cells.parquet") for name in dict.fromkeys(names)])
    target = out or (folder(paths, names[0]) if len(set(names)) == 1 else paths.results / "transfer" / "pooled")
    _summarise(cells, target, plan, settings, title=f"Reverse transfer, {', '.join(dict.fromkeys(names))}")


def folder(paths: Paths, name: str) -> Path:
    """The results of one FIM's study."""
    return paths.results / "transfer" / name


def _summarise(cells: pl.DataFrame, target: Path, plan: Plan, settings: TransferStudy, *, title: str) -> None:
    table = readings(cells)
    differences = contrasts(table, seed=plan["seed"], draws=settings.bootstrap)
    svg, png = draw(lambda: transfer_figure(cells))
    write_text(target / "summary.csv", summary_csv(table, differences))
    write_text(target / "summary.md", summary_markdown(cells, table, differences, title=title))
    write_bytes(target / "reverse-transfer.svg", svg)
    write_bytes(target / "reverse-transfer.png", png)
    log.info("fim-transfer: summary and figure in %s", target)


def _study(plan: Plan, name: str, paths: Paths, settings: TransferStudy, *, force: bool) -> None:
    """Writes cells.parquet and record.json of one FIM, unless they are up to date."""
    made, record = folder(paths, name) / "cells.parquet", folder(paths, name) / "record.json"
    with exclusive(f"fim-transfer {name}", paths):
        described = _described(plan, name, paths, settings)
        key = value_digest(described)
        if not force and _is_up_to_date(record, made, key):
            log.info("fim-transfer %s: nothing to do, %s is up to date", name, record)
            return
        record.unlink(missing_ok=True)
        work = paths.work(f"fim-transfer-{name}")
        if force:
            shutil.rmtree(work, ignore_errors=True)
        clock = time.perf_counter()
        device = choose_device()
        retention = Retention(plan, name, paths, settings, device)
        seed = derive_seed(plan["seed"], "transfer target", name)
        target = photograph_task(seed, draws=settings.seeds, train=settings.train, test=settings.test, size=retention.size)
        cell_key = value_digest({**described, "entry": _of_a_cell(described["entry"]), "device": describe(device)})
        cells = run_cells(name, plan["seed"], retention, target, settings, work=work, key=cell_key, device=device)
        write_parquet(made, cells)
        write_json(
            record,
            {
                "schema": 1,
                "step": "fim-transfer",
                "name": name,
                "key": key,
                **described,
                "outputs": {made.name: file_digest(made)},
                "target": PHOTOGRAPHS,
                "version": __version__,
                "libraries": {library: metadata.version(library) for library in _LIBRARIES},
                "device": describe(device),
                "wall_seconds": round(time.perf_counter() - clock, 3),
                "measurements": {"cells": int(cells["replicate"].count())},
            },
        )
        log.info("fim-transfer %s: done in %.1f s", name, time.perf_counter() - clock)


def _described(plan: Plan, name: str, paths: Paths, settings: TransferStudy) -> dict[str, Any]:
    """All that determines the cells: plan entries, settings, digests of inputs and code."""
    fim = lookup(plan, "fims", name)
    backbone = lookup(plan, "backbones", fim["backbone"])
    needs = {
        steps.outputs("fims", name, paths)[0]: f"anchored fim {name}",
        steps.outputs("backbones", fim["backbone"], paths)[0]: f"anchored pretrain {fim['backbone']}",
        steps.outputs("datasets", fim["bank"], paths)[0]: f"anchored prepare {fim['bank']}",
    }
    if probe := backbone.get("probe"):
        needs[steps.outputs("datasets", probe, paths)[0]] = f"anchored prepare {probe}"
    missing = {path: command for path, command in needs.items() if not path.is_file()}
    if missing:
        path, command = next(iter(missing.items()))
        raise InputError(f"fim-transfer {name} needs {path}, which is missing.", f"run `{command}`.")
    own = [Path(__file__).parent / f"{module}.py" for module in _OWN_CODE]
    return {
        "entry": {"fim": fim, "backbone": backbone, "seed": plan["seed"], "settings": settings.model_dump(mode="json")},
        "inputs": {path.relative_to(paths.root).as_posix(): file_digest(path) for path in needs},
        "code": {step: code_digest(step) for step in _SHARED_CODE} | {path.name: file_digest(path) for path in own},
    }


def _of_a_cell(entry: dict[str, Any]) -> dict[str, Any]:
    """What determines the line of one cell, given the cell: the size of the grid does not."""
    kept = {key: value for key, value in entry["settings"].items() if key not in ("seeds", "strengths", "rates", "bootstrap")}
    return {**entry, "settings": kept}


def _is_up_to_date(record: Path, made: Path, key: str) -> bool:
    try:
        found = read_json(record, made_by="anchored fim-transfer")
        return found["key"] == key and found["outputs"][made.name] == file_digest(made)
    except (InputError, OSError, KeyError, TypeError):
        return False
