"""A server on this machine, a table of sources that points at it, and the command that reads both."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fetch_cases import entry
from local_web import Web, serving
from typer.testing import CliRunner

from anchored.fetch import sources
from anchored.fetch.sources import Source


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server of one test."""
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which no test waits for."""
    pauses: list[float] = []
    monkeypatch.setattr("anchored.fetch.transfer.time.sleep", pauses.append)
    return pauses


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of the machine must not reach the local server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Source]:
    """table("name", files=[...]) puts a source into the table, with plain values for what is left out; returns it."""
    entries: dict[str, Any] = {}

    def add(name: str, **values: Any) -> Source:
        entries[name] = entry(name, **values)
        found = sources.parse_sources(entries)
        monkeypatch.setattr(sources, "load_sources", lambda: found)
        return found[name]

    return add


class Run:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., Run]:
    """fetch("name", "--force") runs the command below `tmp_path`; unexpected exceptions fail the test."""
    from anchored.cli import app

    def run(*arguments: str) -> Run:
        done = CliRunner().invoke(app, ["fetch", *arguments, "--root", str(tmp_path)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        for handler in logging.getLogger("anchored").handlers:
            handler.close()
        return Run(done.exit_code, done.stdout, done.stderr)

    return run
