"""Rates of a device from the records of steps that it finished.

    wall = sum over what the step did of (amount / rate)

One rate after the other, from steps in which it decides: each such record gives the rate that explains its time when the other
terms take what is known of them so far; the rate is the median of these. Where the records hold networks of different kinds,
matrix products and convolutions get a rate each, by least squares on relative errors; else both are scaled alike.

Besides the wall time a record may tell parts of it: images per second of a FIM, of its loader and of the Fisher alone; seconds of
each fine-tuned cell. What remains is the setup of the step.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from anchored.cost.throughput import OPERATIONS, Constant, Device
from anchored.cost.work import PRECISION_CHECK, Amounts, Job, What, Work
from anchored.errors import ConfigError, InputError
from anchored.paths import Paths
from anchored.plan.load import Plan
from anchored.record import planned_step

log = logging.getLogger("anchored")

# Columns of the least squares that are nearly multiples of each other say nothing about two rates.
_CONDITION = 20.0
_TERMS = ("decode", "draw", "rows", "tables")


@dataclass(frozen=True)
class Timed:
    """A finished job: what it did and how long its step took.

    Attributes:
        amounts: without its start, which the record does not see.
        seconds: the record's wall time.
        start: seconds that the whole process took beyond it, where an engine measured that.
        setup: seconds of the step before and between its work, where its record tells the work.
        fisher: seconds of a FIM's Fisher without its loader.
        loader: seconds of a FIM's loader without its Fisher.
        fit: seconds of a logistic regression on features that were there already.
        device: in words.
        cells: number of fine-tuned cells.
    """

    job: Job
    step: str
    amounts: Amounts
    seconds: float
    device: str
    cells: int = 1
    start: float | None = None
    setup: float | None = None
    fisher: float | None = None
    loader: float | None = None
    fit: float | None = None


class Guess(NamedTuple):
    """Seconds of a job: predicted, and as recorded."""

    step: str
    half: int
    predicted: float
    actual: float


@dataclass(frozen=True)
class Calibration:
    """A calibrated device and how well it tells what it was not calibrated on.

    Attributes:
        name: of the device.
        device: its rates.
        used: number of records.
        skipped: reasons, with the number of records.
        held_out: every record, predicted with rates from the half of the records that it does not belong to.
    """

    name: str
    device: Device
    used: int
    skipped: Mapping[str, int]
    held_out: Sequence[Guess]


def calibrate(plan: Plan, work: Mapping[Job, Work], sources: Sequence[Path], base: Callable[[bool], Device]) -> Calibration:
    """Derives the rates of the device that made the records.

    Args:
        plan: the plan that the records belong to.
        work: its jobs.
        sources: record files, or folders that are searched for them.
        base: the built-in device, with or without a GPU, that lends the rates which the records do not tell.

    Raises:
        InputError: no record belongs to the plan.
        ConfigError: the records are of several devices.
    """
    found, skipped = read_records(plan, work, sources)
    if not found:
        reasons = "; ".join(f"{count} {reason}" for reason, count in skipped.items()) or "there is none"
        where = ", ".join(map(str, sources))
        raise InputError(f"no record of this plan among {where}: {reasons}.", "name the configuration of the records by --config.")
    devices = sorted({each.device for each in found if _operations(each.amounts)})
    if len(devices) > 1:
        raise ConfigError(f"the records are of {len(devices)} devices: {', '.join(devices)}.", "pass the records of one of them.")
    words = devices[0] if devices else "cpu"
    lent = base(words != "cpu")
    halves = found[::2], found[1::2]
    held_out = []
    for half, (known, asked) in enumerate((halves, halves[::-1])):
        device = derive(known, lent)
        held_out += [Guess(each.step, half, device.seconds(each.amounts), each.seconds) for each in asked]
    name = "".join(letter if letter.isalnum() else "-" for letter in words.lower()).strip("-")
    return Calibration(name, derive(found, lent), len(found), skipped, held_out)


def read_records(plan: Plan, work: Mapping[Job, Work], sources: Sequence[Path]) -> tuple[list[Timed], dict[str, int]]:
    """The usable records in `sources`, ordered by job, and the reasons why others are not.

    Raises:
        InputError: a source is missing.
    """
    kinds = {name: kind for kind, name in work if kind not in ("evaluate", "tables")}
    found: dict[Job, Timed] = {}
    skipped: dict[str, int] = {}
    for path in _files(sources):
        made = _timed(plan, work, kinds, path)
        if isinstance(made, str):
            skipped[made] = skipped.get(made, 0) + 1
        else:
            found[made.job] = made
    return [found[job] for job in sorted(found)], skipped


def derive(records: Sequence[Timed], base: Device) -> Device:
    """The device with every rate that the records tell; the others are those of `base`."""
    device = base
    for name in ("start", "setup"):
        device = _median(name, [seconds for each in records if (seconds := getattr(each, name)) is not None], device)
    for name in _TERMS:
        device = _term(name, [each for each in records if What(name) in each.amounts], device)
    device = _views(records, device)
    device = _fit(records, device)
    tuned = [each for each in records if each.step.startswith("finetune") and What("fit") not in each.amounts]
    device = _network(tuned, device)
    for way in ("pretrain", "hooks", "loop"):
        device = _slower(way, records, device)
    return device


# --- reading ---------------------------------------------------------------------------------------------------------------


def _files(sources: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        if not source.exists():
            raise InputError(f"{source} is missing.", "pass record.json files, or a folder that holds some.")
        files += sorted(source.rglob("*record.json")) if source.is_dir() else [source]
    return files


def _timed(plan: Plan, work: Mapping[Job, Work], kinds: Mapping[str, str], path: Path) -> Timed | str:
    """A record as a finished job of the plan, or why it cannot be used."""
    try:
        record: Any = json.loads(path.read_text())
        step, name, seconds, device = record["step"], record["name"], float(record["wall_seconds"]), record["device"]
        entry, measured = record["entry"], record["measurements"]
    except (OSError, ValueError, KeyError, TypeError):
        return "no record of a step"
    job = (step, "") if (step, "") in work else (kinds.get(name, ""), name)
    if job not in work:
        return "of no job of this plan"
    planned = planned_step(plan, job[0], job[1], Paths())
    # The record went through JSON, which has no tuples.
    if planned.step != step or json.loads(json.dumps(planned.entry)) != entry:
        return "of another plan"
    if measured.get("images_before_a_restart") or measured.get("epochs_before_a_restart"):
        return "of a continued job"
    amounts = work[job].amounts.copy()
    del amounts[What("start")]
    parts = _fim_parts(record, work[job].images) if step == "fim" else _cell_parts(measured)
    if "work" in parts:
        parts["setup"] = max(seconds - parts.pop("work"), 0.0)
    return Timed(
        job, work[job].step, amounts, seconds, device, measured.get("cells", 1), _started(path, step, name, seconds), **parts
    )


def _fim_parts(record: Mapping[str, Any], images: int) -> dict[str, float]:
    measured, entry = record["measurements"], record["entry"]
    fisher, loader, both = (measured.get(f"{part}images_per_second") for part in ("fisher_", "loader_", ""))
    if not (fisher and loader and both):
        return {}
    # The first images are measured again for the error of the arithmetic, outside of the speeds.
    again = PRECISION_CHECK * min(entry["precision_check"], images) if entry.get("start", 0) == 0 else 0.0
    return {"fisher": (images + again) / fisher, "loader": images / loader, "work": images / both + again / fisher}


def _cell_parts(measured: Mapping[str, Any]) -> dict[str, float]:
    cells = measured.get("cell_seconds")
    if not cells:
        return {}
    fits = measured.get("fit_seconds")
    return {"work": float(sum(cells))} | ({"fit": float(median(fits))} if fits else {})


def _started(path: Path, step: str, name: str, seconds: float) -> float | None:
    """Seconds of the process beyond the record's, from the benchmark that Snakemake keeps beside results/."""
    for folder in path.parents:
        if folder.name == "results":
            benchmark = folder.parent / "logs" / step / f"{name}.jsonl"
            try:
                whole = float(json.loads(benchmark.read_text().splitlines()[-1])["s"])
            except (OSError, ValueError, KeyError, IndexError, TypeError):
                return None
            return whole - seconds if whole > seconds else None
    return None


# --- rates -----------------------------------------------------------------------------------------------------------------


def _median(key: str, values: Sequence[float], device: Device) -> Device:
    return _with(device, {key: median(values)}, len(values)) if values else device


def _term(name: str, records: Sequence[Timed], device: Device) -> Device:
    """The rate of an amount from the steps that do hardly anything else."""
    rates = []
    for each in records:
        left = each.seconds - device.seconds(each.amounts) + each.amounts[What(name)] * device.seconds_each(What(name))
        if left > 0:
            rates.append(each.amounts[What(name)] / left)
    return _median(name, rates, device)


def _views(records: Sequence[Timed], device: Device) -> Device:
    """Pixels per second of the loader alone; reading the stored images is a part of it."""
    rates = []
    for each in records:
        read = each.amounts[What("read")] * device.seconds_each(What("read"))
        if each.loader and each.loader > read:
            rates.append(each.amounts[What("views")] / (each.loader - read))
    return _median("views", rates, device)


def _fit(records: Sequence[Timed], device: Device) -> Device:
    """Values per second of a logistic regression."""
    return _median("fit", [each.amounts[What("fit")] / each.cells / each.fit for each in records if each.fit], device)


def _network(records: Sequence[Timed], device: Device) -> Device:
    for precision in sorted({what.precision for each in records for what in _operations(each.amounts)}):
        chosen = [each for each in records if {what.precision for what in _operations(each.amounts)} == {precision}]
        left = [each.seconds - device.seconds(_others(each.amounts)) for each in chosen]
        rows = [(each, seconds) for each, seconds in zip(chosen, left, strict=True) if seconds > 0]
        if rows:
            device = _with(device, _fitted_rates(rows, precision, device), len(rows))
    return device


def _fitted_rates(rows: Sequence[tuple[Timed, float]], precision: str, device: Device) -> dict[str, float]:
    """Rates of matrix products and convolutions that explain the seconds of the rows."""
    whats = [What(name, precision) for name in OPERATIONS]
    amounts = np.array([[each.amounts[what] for what in whats] for each, _ in rows])
    seconds = np.array([left for _, left in rows])
    relative = amounts / seconds[:, None]
    norms = np.linalg.norm(relative, axis=0)
    if norms.all() and np.linalg.cond(relative / norms) < _CONDITION:
        each = np.linalg.lstsq(relative, np.ones(len(rows)), rcond=None)[0]
        if (each > 0).all():
            return {f"{what.name}.{precision}": float(1 / value) for what, value in zip(whats, each, strict=True)}
    before = amounts @ np.array([device.seconds_each(what) for what in whats])
    scale = float(np.median(before / seconds))
    return {f"{what.name}.{precision}": scale / device.seconds_each(what) for what in whats}


def _slower(way: str, records: Sequence[Timed], device: Device) -> Device:
    ratios = []
    for each in records:
        part: Amounts = _pick(each.amounts, lambda what: what.way == way)
        if part:
            left = each.fisher or each.seconds - device.seconds(each.amounts) + device.seconds(part)
            ratios.append(left / (device.seconds(part) / device.slower[way].value))
    return _median(f"slower.{way}", [ratio for ratio in ratios if ratio > 0], device)


def _with(device: Device, values: Mapping[str, float], count: int) -> Device:
    """A copy of the device with measured values by dotted key."""
    update: dict[str, Any] = {}
    for key, value in values.items():
        constant = Constant(value=float(f"{value:.4g}"), source=f"measured: {count} record{'s' if count > 1 else ''}")
        field, _, part = key.partition(".")
        if part:
            update[field] = {**update.get(field, getattr(device, field)), part: constant}
        else:
            update[field] = constant
    return device.model_copy(update=update)


def _pick(amounts: Amounts, chosen: Callable[[What], bool]) -> Amounts:
    return type(amounts)({what: amount for what, amount in amounts.items() if chosen(what)})


def _operations(amounts: Amounts) -> Amounts:
    return _pick(amounts, lambda what: what.name in OPERATIONS)


def _others(amounts: Amounts) -> Amounts:
    return _pick(amounts, lambda what: what.name not in OPERATIONS)
