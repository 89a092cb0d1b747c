"""How far a study scales: planning, tables, a simulated cluster. Writes scale.json, docs/scale.md and its figure.

    python benchmarks/scale.py                         prints the tables
    python benchmarks/scale.py --write                 also writes them
    python benchmarks/scale.py --parts planning tables some parts only; the others keep what an earlier run measured
    python benchmarks/scale.py --quick                 tiny sizes: shows that it runs, and measures nothing

Parts of the cluster need SLURM (Debian's slurm-wlm and munge) and are left out without it.
"""

import argparse
import io
import json
import os
import platform
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
from machine import processor
from scaling import engine, evaluation, figure, page, planning, slurm
from scaling.study import STEP, paper_plan, plan_of

from anchored.files import write_bytes, write_json, write_text

FOLDER = Path(__file__).parent
RESULT = FOLDER / "scale.json"
PAGE, DRAWING = FOLDER.parent / "docs" / "scale.md", FOLDER.parent / "docs" / "figures" / "scale"


def measure_planning(quick: bool) -> dict[str, Any]:
    """The dry run of studies of several sizes."""
    sizes = (STEP, 2 * STEP) if quick else (100, 300, 1000, 2500, 5000)
    repeats = 1 if quick else 2
    return {"planning": [_in_a_folder(lambda folder, size=size: planning.plan_engines(folder, size, repeats)) for size in sizes]}


def measure_dvc(quick: bool) -> dict[str, Any]:
    """The same of DVC."""
    sizes = (STEP,) if quick else (100, 300, 1000)
    return {"dvc": [_in_a_folder(lambda folder, size=size: planning.plan_dvc(folder, size)) for size in sizes]}


def measure_tables(quick: bool) -> dict[str, Any]:
    """Tables of studies of several sizes."""
    sizes = (STEP,) if quick else (100, 1000, 5000)
    return {"tables": [_in_a_folder(lambda folder, size=size: evaluation.tables(folder, size)) for size in sizes]}


def measure_cluster(quick: bool) -> dict[str, Any]:
    """The paper's plan on 8 and on 64 nodes, and jobs that do nothing."""
    plan = plan_of(STEP) if quick else paper_plan()
    runs, floods = [], []
    for nodes in (2,) if quick else (8, slurm.NODES):
        with _short_folder() as folder, slurm.simulated(Path(folder) / "c", nodes) as cluster:
            runs.append(slurm.simulate(plan, cluster, target=20 if quick else 240))
            floods += [slurm.flood(cluster, jobs) for jobs in ((20,) if quick else (100, 300, 1000))]
    return {"cluster": runs, "flood": floods}


def measure_engine(quick: bool) -> dict[str, Any]:
    """Snakemake's executor: two jobs at a time, since each should have a core of this machine as it has one of a node."""
    rows = []
    for jobs in (4,) if quick else (10, 25, 50):
        with _short_folder() as folder, slurm.simulated(Path(folder) / "c", 2, cpus=8, gpus=0) as cluster:
            rows.append(engine.execute(Path(folder), cluster, jobs, seconds=0.1 if quick else 2))
    return {"engine": rows}


_PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "planning": measure_planning,
    "tables": measure_tables,
    "dvc": measure_dvc,
    "cluster": measure_cluster,
    "engine": measure_engine,
}
_NEED_SLURM = ("cluster", "engine")


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--quick measures nothing that could be written.")
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() and not options.quick else {}
    for part in options.parts:
        if part in _NEED_SLURM and not slurm.available():
            print(f"{part}: left out, this machine has no SLURM")
            continue
        found |= _PARTS[part](options.quick)
        found["machine"] = {**found.get("machine", {}), part: _machine()}
        if options.write:
            write_json(RESULT, found)
    print(page.with_results(PAGE.read_text(), found))
    if options.write:
        write_page(found)


def write_page(found: dict[str, Any]) -> None:
    """The page's tables, and the figure, from what was measured."""
    write_text(PAGE, page.with_results(PAGE.read_text(), found))
    for suffix in ("svg", "png"):
        drawn = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "anchored"}):  # the same numbers, the same bytes
            figure.draw(found).savefig(drawn, format=suffix, dpi=150, metadata={"Date": None} if suffix == "svg" else {})
        write_bytes(DRAWING.with_suffix(f".{suffix}"), drawn.getvalue())


def _machine() -> str:
    versions = ", ".join(f"{name} {version(name.lower())}" for name in ("Snakemake", "DVC", "polars"))
    load = f", load {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    today = datetime.now(UTC).date().isoformat()
    return f"{processor()}, {os.cpu_count()} cores{load}, {today}; Python {platform.python_version()}, {versions}"


def _short_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder whose name leaves room for the paths of SLURM's sockets."""
    return tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True)


def _in_a_folder(measure: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    with _short_folder() as folder:
        found = measure(Path(folder))
    print(json.dumps(found), flush=True)
    return found


if __name__ == "__main__":
    main()
