"""What a command says: progress and one line an error on stderr, the whole story in its log file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from anchored.errors import AnchoredError, EnvironmentFailure

log = logging.getLogger("anchored")


@contextmanager
def reported(log_file: Path | None) -> Iterator[None]:
    """Turns errors into one line on stderr and an exit code; the traceback goes to the log file.

    Raises:
        typer.Exit: with the code of `errors.py` after an error.
    """
    _log_to_terminal()
    try:
        if log_file:
            _log_to_file(log_file)
        yield
    except AnchoredError as error:
        _report(error, log_file)
        raise typer.Exit(error.exit_code) from error
    except (MemoryError, RuntimeError) as error:
        # torch reports an allocation that failed as a RuntimeError with one of these texts.
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in ("out of memory", "can't allocate memory")):
            raise
        failure = EnvironmentFailure("out of memory.", "use a smaller batch, or a machine with more memory.")
        _report(failure, log_file)
        raise typer.Exit(failure.exit_code) from error
    except KeyboardInterrupt as error:
        print("interrupted; run the same command again to continue.", file=sys.stderr)
        raise typer.Exit(130) from error


def file_name(name: str) -> str:
    """A name from the command line that cannot leave the log folder."""
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name).lstrip(".") or "_"


def _report(error: AnchoredError, log_file: Path | None) -> None:
    log.debug("failed", exc_info=error)
    where = f"\n  log: {log_file}" if log_file and log_file.exists() else ""
    print(f"error: {error}{where}", file=sys.stderr)


def _log_to_terminal() -> None:
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)


def _log_to_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path)  # appends: a process that the lock turns away must not erase
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {path}: {error.strerror}.", "check --root, the disk and permissions.") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
