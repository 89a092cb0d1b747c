"""Progress: lines for logs, a bar for people."""

import logging
import os
import pty
import subprocess
import sys

import pytest

from anchored import progress as module
from anchored.progress import progress

CODE = """
import logging, sys
logging.getLogger("anchored").setLevel("INFO")
logging.getLogger("anchored").addHandler(logging.StreamHandler(sys.stderr))
from anchored.progress import progress
with progress("train demo", 3) as advance:
    advance(note="loss 2.0")
    advance(2, note="loss 1.5")
"""


@pytest.fixture
def lines(monkeypatch, caplog):
    """Logged lines, and a clock that a test moves."""
    logger = logging.getLogger("anchored")
    monkeypatch.setattr(logger, "propagate", True)
    logger.setLevel("INFO")
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    return clock, caplog


def test_lines_come_every_ten_seconds_with_an_estimate(lines):
    """A log of 10,000 steps must not have 10,000 lines, and must say when it will end."""
    clock, caplog = lines
    with module.progress("fim x", 100) as advance:
        for _ in range(9):
            clock[0] += 1
            advance()
        assert caplog.messages == []
        clock[0] += 1
        advance(note="loss 0.5")
        clock[0] += 2
        advance()
        assert caplog.messages == ["fim x: 10/100, 10 s so far, about 90 s left, loss 0.5"]
        clock[0] += 20
        advance(89)
    assert caplog.messages[1:] == ["fim x: 100/100, 32 s so far, about 0 s left"]


def test_short_work_is_one_line(lines):
    """The last unit always reports; no unit at all is no division by zero."""
    _, caplog = lines
    with progress("prepare x", 2) as advance:
        advance(0)
        advance(2)
    assert caplog.messages == ["prepare x: 2/2, 0 s so far, about 0 s left"]


def test_no_terminal_gives_plain_lines():
    """Control characters in a cluster's log file hide what it says."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["train demo: 3/3, 0 s so far, about 0 s left, loss 1.5"]


def shown_on_a_terminal(**variables: str) -> str:
    """What the code above draws on a pseudo-terminal."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", **variables}
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.DEVNULL, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # Linux reports the closed terminal so
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert process.wait() == 0
    return shown.decode()


def test_terminal_gives_a_bar():
    """The title, the count, the time left, the note, and a bar drawn in place."""
    text = shown_on_a_terminal()
    for expected in ("train demo", "3/3", "left", "loss 1.5", "━", "\x1b["):
        assert expected in text
    assert "so far" not in text


def test_lines_on_request():
    """Jobs that run at the same time share a terminal; their bars would overwrite each other."""
    text = shown_on_a_terminal(ANCHORED_PROGRESS="lines")
    assert text.splitlines() == ["train demo: 3/3, 0 s so far, about 0 s left, loss 1.5"]
