"""Progress of a transfer, counted in bytes and shown in MiB."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anchored.progress import Advance, progress

MIB = 1 << 20


@contextmanager
def byte_bar(name: str, total: int | None, offset: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes the number of bytes that have come, `offset` at first; small files have no bar."""
    if total is None or total < MIB:
        yield lambda done: None
        return
    with progress(f"fetch {name}, MiB", total // MIB) as advance:
        yield _Counter(advance, offset)


class _Counter:
    """Turns bytes that have come into steps of a MiB."""

    def __init__(self, advance: Advance, offset: int) -> None:
        self.advance, self.shown = advance, 0
        self(offset)

    def __call__(self, done: int) -> None:
        if done // MIB > self.shown:
            self.advance(done // MIB - self.shown)
            self.shown = done // MIB
