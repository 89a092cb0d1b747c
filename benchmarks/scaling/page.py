"""What was measured as tables of docs/scale.md: everything between two marks of the page is written here."""

import re
from collections.abc import Callable, Sequence
from typing import Any

_BLOCK = re.compile(r"(<!-- (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def with_results(text: str, found: dict[str, Any]) -> str:
    """The page with the tables of all parts that were measured."""

    def block(match: re.Match[str]) -> str:
        name = match[2]
        return f"{match[1]}\n{_PARTS[name](found[name])}\n\n{match[4]}" if name in found else match[0]

    return _BLOCK.sub(block, text)


def marks(text: str) -> set[str]:
    """The parts that the page has a place for."""
    return {match[2] for match in _BLOCK.finditer(text)}


def _planning(rows: list[dict[str, Any]]) -> str:
    first, last = rows[0], rows[-1]
    head = ("cells = jobs", "plan, MB", "`snakemake --dry-run`, CPU s", "jobs without inputs, CPU s", "ratio", "ms a job",
            "start of one job, CPU s", "`anchored plan`, CPU s", "`--cost`, CPU s", "memory of the dry run, MiB")  # fmt: skip
    lines = []
    for before, row in zip([None, *rows], rows, strict=False):
        step = "" if before is None else _per_job(before, row, "dry_run")
        lines.append(
            (f"{row['cells']:,}", f"{row['plan_bytes'] / 1e6:.1f}", f"{row['dry_run']['cpu']:.1f}", f"{row['bare']['cpu']:.1f}",
             f"{row['dry_run']['cpu'] / row['bare']['cpu']:.2f}", step, f"{row['job_start']['cpu']:.2f}",
             f"{row['compile']['cpu']:.1f}", f"{row['cost']['cpu']:.1f}", str(row["dry_run"]["mib"]))
        )  # fmt: skip
    ours, bare = (_per_job(first, last, key) for key in ("dry_run", "bare"))
    note = (
        f"\"ms a job\" is the slope from the row above; over all {ours} ms, in the trivial workflow {bare} ms. A fine-tuning job "
        f"has {last['inputs_per_job']} inputs and 4 outputs."
    )
    return f"{_table(head, lines)}\n\n{note}"


def _per_job(before: dict[str, Any], row: dict[str, Any], key: str) -> str:
    return f"{(row[key]['cpu'] - before[key]['cpu']) / max(1, row['cells'] - before['cells']) * 1e3:.1f}"


def _tables(rows: list[dict[str, Any]]) -> str:
    head = ("cells", "files", "predictions, MB", "evaluate, CPU s", "evaluate, wall s", "evaluate, MiB", "tables, CPU s",
            "tables, wall s", "tables, MiB")  # fmt: skip
    lines = [
        (f"{row['cells']:,}", f"{row['files']:,}", f"{row['bytes'] / 1e6:.0f}",
         *(f"{row[step][key]:.0f}" for step in ("evaluate", "tables") for key in ("cpu", "wall", "mib")))
        for row in rows
    ]  # fmt: skip
    return _table(head, lines)


def _cluster(rows: list[dict[str, Any]]) -> str:
    head = ("jobs", "GPUs", "1 s here is", "longest chain, s", "work / GPUs, s", "ideal, s", "SLURM, s", "ratio",
            "held beyond its sleep, s a job")  # fmt: skip
    lines = [
        (str(row["jobs"]), str(row["gpus"]), f"{1 / row['factor']:.0f} s", f"{row['critical_seconds']:.0f}",
         f"{row['busy_seconds']:.0f}", f"{row['ideal_seconds']:.0f}", f"{row['measured_seconds']:.0f}",
         f"{row['measured_seconds'] / row['ideal_seconds']:.2f}", f"{row['held_beyond_work']:.2f}")
        for row in rows
    ]  # fmt: skip
    return _table(head, lines)


def _flood(rows: list[dict[str, Any]]) -> str:
    head = ("jobs", "GPUs", "seconds", "jobs a second")
    return _table(head, [(str(row["jobs"]), str(row["gpus"]), f"{row['seconds']:.0f}",
                          f"{row['jobs'] / max(1.0, row['seconds']):.0f}") for row in rows])  # fmt: skip


def _engine(rows: list[dict[str, Any]]) -> str:
    head = ("jobs", "all in the queue after, s", "Snakemake before the step, s a job", "after it, s a job", "end noticed after, s",
            "submitting Snakemake, CPU s")  # fmt: skip
    lines = [
        (str(row["jobs"]), f"{row['last_submitted_after']:.0f}", f"{row['before_step']:.1f}", f"{row['after_step']:.1f}",
         f"{row['noticed_after']:.0f}", f"{row['snakemake_cpu']:.1f}")
        for row in rows
    ]  # fmt: skip
    return _table(head, lines)


def _dvc(rows: list[dict[str, Any]]) -> str:
    head = ("cells = stages", "`dvc status`, CPU s", "`dvc repro --dry`, CPU s", "ms a stage")
    lines = [
        (f"{row['cells']:,}", f"{row['status']['cpu']:.1f}", f"{row['dry']['cpu']:.1f}",
         "" if before is None else _per_job(before, row, "dry"))
        for before, row in zip([None, *rows], rows, strict=False)
    ]  # fmt: skip
    return _table(head, lines)


def _machine(found: dict[str, Any]) -> str:
    return "\n".join(f"- {part}: {words}" for part, words in found.items())


_PARTS: dict[str, Callable[[Any], str]] = {
    "planning": _planning, "tables": _tables, "cluster": _cluster, "flood": _flood, "engine": _engine, "dvc": _dvc,
    "machine": _machine,
}  # fmt: skip


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---:"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
