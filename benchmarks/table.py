"""What was measured, as `fisher.json` and as the tables of README.md: nothing in these files is written by hand."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from machine import processor
from models import SETTINGS
from peers import METHODS, PACKAGES

from anchored.files import write_json, write_text

FOLDER = Path(__file__).parent
RESULT, README = FOLDER / "fisher.json", FOLDER / "README.md"


def read_result() -> dict[str, Any] | None:
    """What an earlier run measured."""
    return json.loads(RESULT.read_text()) if RESULT.exists() else None


def write_result(rows: list[dict[str, Any]], device: str, previous: dict[str, Any] | None, *, write: bool) -> str:
    """The page for `rows`; with `write`, to the two files, where networks that were not measured this time keep their rows."""
    measured = {row["model"] for row in rows}
    runs = [run for run in (previous or {}).get("runs", []) if run["model"] not in measured or run["device"] != _device(device)]
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [{key: value for key, value in row.items() if key != "model"} for row in rows if row["model"] == model]
        runs.append({"model": model, "device": _device(device), "date": _today(), "versions": _versions(), "rows": own})
    runs.sort(key=lambda run: (run["device"], list(SETTINGS).index(run["model"])))
    text = page(runs)
    if write:
        write_json(RESULT, {"runs": runs})
        write_text(README, text)
    return text


def page(runs: list[dict[str, Any]]) -> str:
    """README.md."""
    return _HEAD + "\n".join(_section(run) for run in runs)


_HEAD = """# Benchmarks

Written by `python benchmarks/fisher.py --write`; `make benchmark` runs it. The diagonal of the empirical Fisher under cross
entropy with random labels, random images and weights, one CPU thread unless a device is named.

- time: of a batch, over that of one plain forward and backward pass in the same process, minima of batches that take turns
- memory: peak above the loaded network, over that of the plain pass
- worst error: relative 2-norm against the float64 loop of the tensor that is furthest off; missing: parameters without a result
- a method that fails has its own words

`python benchmarks/anchor_cost.py` measures the penalty, `python benchmarks/kernel.py` the fused kernel on a GPU.
From image files to batches: [decoding.md](decoding.md).
`python benchmarks/scale.py --write` measures planning, tables and a simulated cluster ([docs/scale.md](../docs/scale.md)),
`python benchmarks/slurm_overhead.py --write` what SLURM takes for a job ([docs/cluster.md](../docs/cluster.md#many-short-jobs)).

"""


def _section(run: dict[str, Any]) -> str:
    setting = SETTINGS[run["model"]]
    views = f", {setting.views} views each" if setting.views > 1 else ""
    lines = [
        f"## {setting.title}, {setting.batch} images of {setting.size} pixels{views}",
        "",
        f"{run['device']}, {run['date']}; {', '.join(f'{name} {number}' for name, number in run['versions'].items())}.",
        "",
        "| method | time | memory | worst error | missing |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    plain = next((row for row in run["rows"] if row["method"] == "plain"), None)
    return "\n".join(lines + [_line(row, plain) for row in run["rows"]]) + "\n"


def _line(row: dict[str, Any], plain: dict[str, Any] | None) -> str:
    title = METHODS[row["method"]][0]
    if "fails" in row:
        return f"| {title} | fails: {row['fails'].replace('|', '/')} | | | |"
    time = f"{row['time']:.2f}"
    if row is plain:
        return f"| {title} ({row['seconds'] * 1e3:.3g} ms an image, {row['mib']:.0f} MiB) | 1 | 1 | | |"
    memory = f"{row['mib'] / plain['mib']:.2f}" if plain else f"{row['mib']:.0f} MiB"
    error = "" if row["error"] is None else f"{row['error']:.0e}"
    return f"| {title} | {time} | {memory} | {error} | {row['missing']} |"


def _device(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, 1 thread"


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version(), "torch": torch.__version__, "timm": version("timm")}
    for package in PACKAGES.values():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
