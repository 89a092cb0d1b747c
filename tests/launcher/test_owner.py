"""Whose lock it is: with real processes."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchored.errors import EnvironmentFailure
from anchored.launcher import owner
from anchored.launcher.owner import Owner, owned
from anchored.paths import Paths
from anchored.processes import running

SLEEP = "import time; time.sleep(60)"


def locked(root: Path) -> Owner:
    (root / ".snakemake" / "locks").mkdir(parents=True)
    (root / ".snakemake" / "locks" / "0.input.lock").write_text("plan.json\n")
    return Owner(Paths(root))


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    """start("--mode", "remote") -> a process that looks like Snakemake, in the folder of the test."""
    program = tmp_path / "bin" / "snakemake"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{SLEEP}\n")
    program.chmod(0o755)
    (tmp_path / "work").mkdir()
    started = []

    def run(*words: str) -> int:
        started.append(subprocess.Popen([str(program), *words], cwd=tmp_path))
        end = time.monotonic() + 30
        while b"snakemake" not in Path(f"/proc/{started[-1].pid}/cmdline").read_bytes() and time.monotonic() < end:
            time.sleep(0.05)
        return started[-1].pid

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_a_living_snakemake_is_found_and_named(start, tmp_path: Path):
    process = start("--cores", "2")
    assert running("snakemake", tmp_path) == [process]
    with pytest.raises(EnvironmentFailure, match=f"Snakemake is running in .*: process {process} on {socket.gethostname()}"):
        locked(tmp_path).require_stale()


@pytest.mark.parametrize("words", [("--mode", "remote"), ("--dry-run",)])
def test_a_snakemake_inside_of_a_job_or_a_dry_run_holds_no_lock(start, tmp_path: Path, words: tuple[str, ...]):
    start(*words)
    assert running("snakemake", tmp_path) == []


def test_a_snakemake_in_another_folder_is_none_of_our_business(start, tmp_path: Path):
    start("--cores", "2")
    assert running("snakemake", tmp_path / "bin") == []


def test_a_lock_on_a_disk_of_this_machine_is_stale_where_nobody_runs(tmp_path: Path):
    lock = locked(tmp_path)
    assert lock.locked
    lock.require_stale()


def on_shared_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = root / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/home {root} nfs4 rw 0 0\n")
    monkeypatch.setattr(owner, "MOUNTS", mounts)


def test_a_lock_on_a_shared_disk_may_belong_to_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    on_shared_disk(tmp_path, monkeypatch)
    with pytest.raises(EnvironmentFailure, match=r"locked by a Snakemake that may still run \(on another machine\)"):
        locked(tmp_path).require_stale()


def test_a_lock_that_a_run_on_this_machine_left_is_stale_on_a_shared_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    on_shared_disk(tmp_path, monkeypatch)
    lock = locked(tmp_path)
    lock.started(1)
    lock.require_stale()


def test_a_run_that_ended_does_not_explain_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    on_shared_disk(tmp_path, monkeypatch)
    lock = locked(tmp_path)
    lock.started(1)
    lock.ended()
    with pytest.raises(EnvironmentFailure, match="may still run"):
        lock.require_stale()


def test_the_machine_of_a_run_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    on_shared_disk(tmp_path, monkeypatch)
    lock = locked(tmp_path)
    monkeypatch.setattr(owner.socket, "gethostname", lambda: "login2")
    lock.started(4711)
    monkeypatch.undo()
    on_shared_disk(tmp_path, monkeypatch)
    with pytest.raises(EnvironmentFailure, match="process 4711 on login2"):
        lock.require_stale()


def test_one_anchored_run_a_folder(tmp_path: Path):
    refused = pytest.raises(EnvironmentFailure, match="another process is running anchored run")
    with owned(Paths(tmp_path)), refused, owned(Paths(tmp_path)):
        pass
