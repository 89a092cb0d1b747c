"""Many things at once, results in the order of the things, a bounded number of them in memory.

Threads, since Pillow, hashlib and zstandard release the interpreter's lock while they work: nothing is copied between processes.
The number of threads follows the machine and is no part of a plan, because no byte depends on it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from anchored.processes import cpus

Thing = TypeVar("Thing")
Result = TypeVar("Result")

# Things in the making for each thread: enough to bridge one that takes long, few enough to fit into memory.
_AHEAD = 4


def in_order(work: Callable[[Thing], Result], things: Iterable[Thing], *, workers: int | None = None) -> Iterator[Result]:
    """`map(work, things)` by several threads.

    At most four results a thread are ready or in the making. An exception comes at its place in the order; after it, or when the
    consumer stops early, what has not begun is dropped and the rest waited for.

    Args:
        work: called for each thing, by several threads at once.
        things: taken from as results are asked for.
        workers: number of threads; `cpus()` where it is left out.
    """
    workers = workers or cpus()
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="in-order")
    try:
        for thing in things:
            if len(pending) == _AHEAD * workers:
                yield pending.popleft().result()
            pending.append(pool.submit(work, thing))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
