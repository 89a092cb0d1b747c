"""One process at a time on a thing: locks that go with the process that holds them."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from anchored.errors import EnvironmentFailure
from anchored.files import disk_failure
from anchored.paths import Paths


@contextmanager
def exclusive(what: str, paths: Paths) -> Iterator[None]:
    """Holds the lock of `what`, for example "fim dino-1", as long as the block runs.

    Raises:
        EnvironmentFailure: another process holds it.
    """
    path = paths.work("locks") / f"{what.replace(' ', '-')}.lock"
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
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
