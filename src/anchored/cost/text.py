"""The cost of a plan as text: Markdown tables, rounded to what an estimate is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from tabulate import tabulate

from anchored.cost.calibrate import Calibration, Guess
from anchored.cost.estimate import Cost, Sum

_HOUR = 3600.0


def cost_text(found: Cost) -> str:
    """Tables of steps, experiments and disk, and where the numbers come from."""
    devices = f"{found.slots} x {found.device}"
    rows = [*found.steps.items(), ("total", found.total)]
    parts = [
        f"Cost of the plan '{found.plan}' on {devices}: {duration(found.wall_seconds)} from the first start to the last end.",
        _table("step", dict(rows)),
        _table("experiment", found.experiments),
        _disk(found.disk),
        _origin(found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def calibration_text(found: Calibration, file: Path | None) -> str:
    """The rates of a calibrated device, and what they predict of records that they were not derived from."""
    rates = [[key, f"{constant.value:,.4g}", constant.source] for key, constant in found.device.constants().items()]
    skipped = "".join(f"\n{count} records left out: {reason}." for reason, count in found.skipped.items())
    parts = [
        f"Rates from {found.used} records.{skipped}",
        _markdown(rates, ["rate", found.name, "source"], left=2),
        _held_out(found.held_out) if found.used > 1 else "",
        f"written to {file}; `anchored plan --cost --throughput {file}` uses it." if file else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _held_out(guesses: Sequence[Guess]) -> str:
    def line(name: str, chosen: list[Guess]) -> list[str]:
        predicted, actual = sum(each.predicted for each in chosen), sum(each.actual for each in chosen)
        return [name, str(len(chosen)), f"{predicted:,.1f}", f"{actual:,.1f}", f"{predicted / actual - 1:+.0%}" if actual else ""]

    steps = dict.fromkeys(each.step for each in guesses)
    rows = [line(step, [each for each in guesses if each.step == step]) for step in steps]
    rows += [line(f"half {half + 1}", [each for each in guesses if each.half == half]) for half in (0, 1)]
    errors = sorted(abs(each.predicted / each.actual - 1) for each in guesses if each.actual)
    return (
        "Each half of the records, predicted with rates from the other half, in seconds:\n\n"
        + _markdown(rows, ["step", "jobs", "predicted", "actual", "error"])
        + f"\n\nSingle jobs are off by {median(errors):.0%} in the median, by {errors[-1]:.0%} at most."
    )


def duration(seconds: float) -> str:
    """Seconds as a reader would say them: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{_number(seconds / _HOUR)} h"


def _table(what: str, sums: Mapping[str, Sum]) -> str:
    if not sums:
        return ""
    headers = [what, "jobs", "images", "GPU hours", "CPU hours", "disk, GB", "longest job"]
    rows = [
        [
            name,
            f"{part.jobs:,}",
            f"{part.images:,}",
            _number(part.gpu_hours),
            _number(part.cpu_hours),
            _number(part.disk_bytes / 1e9),
            duration(part.longest_seconds),
        ]
        for name, part in sums.items()
    ]
    return _markdown(rows, headers)


def _disk(disk: Mapping[str, int]) -> str:
    rows = [[kind, _number(size / 1e9)] for kind, size in disk.items() if size]
    return _markdown([*rows, ["total", _number(sum(disk.values()) / 1e9)]], ["on disk", "GB"])


def _origin(found: Cost) -> str:
    assumed = [key for key, constant in found.constants.constants().items() if constant.source.startswith("assumed")]
    if not assumed:
        return "None of the rates is assumed; `--json` has the source of each."
    count = len(found.constants.constants())
    return (
        f"{len(assumed)} of {count} rates of this device are assumed, not measured: {', '.join(assumed)}.\n"
        "`anchored plan --calibrate RESULTS --throughput FILE` replaces them by what finished steps took."
    )


def _markdown(rows: list[list[str]], headers: list[str], left: int | None = None) -> str:
    """A table with its numbers on the right: all columns but the first, and the column `left`."""
    align = ["left" if column in (0, left) else "right" for column in range(len(headers))]
    return tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)


def _number(value: float) -> str:
    """Two or three digits: 0.04, 1.3, 27, 1,240; below a thousandth nothing of them is worth a digit."""
    if value == 0:
        return "0"
    if value < 0.001:
        return "< 0.001"
    if value < 10:
        return f"{value:.2g}"
    return f"{value:,.0f}"
