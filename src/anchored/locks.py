"""One process at a time on a thing: locks that go with the process that holds them."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from anchored.errors import EnvironmentFailure
from anchored.files import disk_failure
from anchored.paths import Paths

log = logging.getLogger("anchored")

_LOOK_EVERY = 1.0


@contextmanager
def exclusive(what: str, paths: Paths, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock of `what`, for example "fim dino-1", as long as the block runs.

    Args:
        what: the thing.
        paths: the folder layout.
        wait: where another process holds it, wait for that one's end instead of giving up.

    Raises:
        EnvironmentFailure: another process holds it.
    """
    path = paths.work("locks") / f"{what.replace(' ', '-')}.lock"
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            if not wait:
                raise
            log.info("another process is running %s; waiting for its end", what)
            lock.acquire(timeout=-1, poll_interval=_LOOK_EVERY)
    except Timeout as error:
        raise EnvironmentFailure(
            f"another process is running {what} in {paths.root.resolve()}.",
            "wait for it, or stop it; the lock goes with the process.",
        ) from error
    except OSError as error:
        raise disk_failure(path, error) from error
    # Outside of the handlers above: an OSError of the block is no failure of the lock.
    try:
        yield
    finally:
        lock.release()


def in_cluster_job() -> bool:
    """Whether SLURM started this process. A node that does not answer counts as lost, and its job starts elsewhere, while the first
    process may still compute: the second waits for it, and then finds its result. The time limit of the job bounds the wait.
    """
    return "SLURM_JOB_ID" in os.environ
