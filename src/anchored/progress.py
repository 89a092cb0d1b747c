"""Progress with an estimate of the time left: a bar where a terminal is, plain log lines elsewhere.

ANCHORED_PROGRESS=lines asks for lines in any case: processes that share a terminal would overwrite each other's bars.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_SECONDS_BETWEEN_LINES = 10.0

log = logging.getLogger("anchored")


class Advance(Protocol):
    """Reports `steps` more units of work done, with an optional note such as the current loss."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Adds `steps`."""


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Yields a function to call after each unit of work; `total` is the number of units."""
    if sys.stderr.isatty() and os.environ.get("ANCHORED_PROGRESS") != "lines":
        with _bar(title, total) as advance:
            yield advance
    else:
        yield _lines(title, total)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bar.update(task, advance=steps, note=note)

        yield advance


def _lines(title: str, total: int) -> Advance:
    started = last = time.monotonic()
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += steps
        clock = time.monotonic()
        if done < total and clock - last < _SECONDS_BETWEEN_LINES:
            return
        last = clock
        left = (clock - started) / max(done, 1) * max(total - done, 0)
        log.info("%s: %d/%d, %.0f s so far, about %.0f s left%s", title, done, total, clock - started, left,
                 f", {note}" if note else "")  # fmt: skip

    return advance
