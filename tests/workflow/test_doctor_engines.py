"""What `anchored doctor` says of the engines, and what `anchored adopt` refuses for the same reason: under the real conditions."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from checkout import Checkout

from anchored.doctor import engines, links, network
from anchored.doctor.finding import ERROR, OK, WARNING, Finding, Patient
from anchored.paths import Paths

pytestmark = pytest.mark.workflow
Copy = Callable[[str], Checkout]


def patient(checkout: Checkout) -> Patient:
    return Patient(Paths(checkout.path), checkout.path / "plan.json", json.loads((checkout.path / "plan.json").read_text()))


def only(findings: Iterator[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


@pytest.fixture(autouse=True)
def _nobodys_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc-site"))


@contextmanager
def running(checkout: Checkout, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """An engine at work, in a process group of its own; killed at the end with all that it started."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=checkout.path, env=checkout.environment, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """As a power failure would."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Returns when it is true; fails when the engine that shall make it true has ended."""
    while not condition():
        assert process.poll() is None, f"the engine ended with {process.returncode}"
        time.sleep(0.2)


def test_a_run_of_snakemake_is_seen_and_so_is_the_lock_of_a_killed_one(made_by: Copy):
    checkout = made_by("snakemake")
    assert engines.holds(checkout.path) == []
    with running(checkout, "snakemake", "--cores", "1", "--forceall", "data") as process:
        wait_for(lambda: engines.holds(checkout.path), process)
        (hold,) = engines.holds(checkout.path)
        assert (hold.engine, process.pid in hold.pids) == ("Snakemake", True)
        found = only(engines.check(patient(checkout)), "engines")
        assert found.status == WARNING
        assert "Snakemake works in this checkout (process " in found.message
        refused = checkout.run("anchored", "adopt", "--from", "dvc", check=False)
        assert (refused.returncode, "Snakemake works in this checkout" in refused.stderr) == (5, True)
        kill(process)
    (hold,) = engines.holds(checkout.path)
    assert hold.pids == ()
    left = only(engines.check(patient(checkout)), "engines")
    assert left.status == WARNING
    assert "`snakemake --unlock`" in left.hint
    assert "left its lock behind" in checkout.run("anchored", "adopt", "--from", "dvc", check=False).stderr
    checkout.run("snakemake", "--unlock")
    assert engines.holds(checkout.path) == []


def test_a_run_of_dvc_is_seen_and_a_killed_one_leaves_nothing(made_by: Copy):
    checkout = made_by("dvc")
    assert engines.holds(checkout.path) == []
    with running(checkout, "dvc", "repro", "--force", "--single-item", "prepare@scenes") as process:
        wait_for(lambda: any(hold.pids for hold in engines.holds(checkout.path)), process)
        (hold,) = engines.holds(checkout.path)
        assert (hold.engine, hold.pids) == ("DVC", (process.pid,))
        refused = checkout.run("anchored", "adopt", "--from", "snakemake", check=False)
        assert (refused.returncode, f"DVC works in this checkout (process {process.pid})" in refused.stderr) == (5, True)
        kill(process)
    assert engines.holds(checkout.path) == []


def test_both_engines_at_once_are_an_error(made_by: Copy):
    """Neither looks at the other's lock; the commands' own locks keep single results whole, but the order is anybody's guess."""
    checkout = made_by("dvc")
    with running(checkout, "dvc", "repro", "--force", "--single-item", "pretrain@resnet") as first:
        wait_for(lambda: engines.holds(checkout.path), first)
        with running(checkout, "snakemake", "--cores", "1", "--forceall", "data") as second:
            wait_for(lambda: len([hold for hold in engines.holds(checkout.path) if hold.pids]) == 2, second)
            found = only(engines.check(patient(checkout)), "engines")
    assert found.status == ERROR
    assert "Snakemake (process " in found.message
    assert "DVC (process " in found.message


@pytest.mark.parametrize(("engine", "other"), [("snakemake", "dvc"), ("dvc", "snakemake")])
def test_the_books_name_the_engine_that_knows_the_results(made_by: Copy, engine: str, other: str):
    found = only(engines.check(patient(made_by(engine))), "books")
    assert found.status == OK
    assert f"`anchored adopt --from {engine}`" in found.message
    assert other in found.message.lower()


def test_results_that_no_engine_made_are_a_warning(made_by: Copy):
    checkout = made_by("snakemake")
    shutil.rmtree(checkout.path / ".snakemake")
    assert only(engines.check(patient(checkout)), "books").status == WARNING


@pytest.mark.parametrize("kind", ["hardlink", "symlink"])
@pytest.mark.parametrize("adopted", ["dvc"], indirect=True)
def test_links_into_the_cache_are_an_error_until_they_are_files_again(adopted: Checkout, tmp_path: Path, kind: str):
    checkout = adopted.copy(tmp_path / "linked")
    assert [found.status for found in links.check(patient(checkout))] == [OK]
    checkout.run("dvc", "config", "--local", "cache.type", kind)
    assert f"cache.type is {kind}" in only(links.check(patient(checkout)), "links").message
    checkout.run("dvc", "checkout", "--relink")
    record = checkout.path / "results" / "fim" / "fim" / "record.json"
    assert record.is_symlink() or record.stat().st_nlink > 1
    refused = checkout.run("anchored", "adopt", "--from", "dvc", check=False)
    assert (refused.returncode, f"cache.type is {kind}" in refused.stderr) == (5, True)
    told = checkout.run("anchored", "doctor", "--json", check=False)
    assert (told.returncode, json.loads(told.stdout)["exit_code"]) == (5, 5)

    # What the hint says, in two steps: the setting alone leaves the links.
    checkout.run("dvc", "config", "--local", "cache.type", "reflink,copy")
    assert "is a link into DVC's cache" in only(links.check(patient(checkout)), "links").message
    checkout.run("dvc", "checkout", "--relink")
    assert [found.status for found in links.check(patient(checkout))] == [OK]


@pytest.mark.parametrize("adopted", ["dvc"], indirect=True)
def test_snakemake_does_not_replace_such_links(adopted: Checkout, tmp_path: Path):
    """The reason for the check. Root may write everything, so it gives that up."""
    checkout = adopted.copy(tmp_path / "linked")
    checkout.run("dvc", "config", "--local", "cache.type", "hardlink")
    checkout.run("dvc", "checkout", "--relink")
    without = ("setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override") if os.getuid() == 0 else ()
    done = checkout.run(*without, "snakemake", "--cores", "1", "--force", "results/runs/res-resnet-erm-1/record.json", check=False)
    assert done.returncode
    assert "ProtectedOutputException" in done.stderr


@pytest.mark.parametrize("adopted", ["dvc"], indirect=True)
def test_results_on_another_disk_are_refused_by_dvc_and_git(adopted: Checkout, tmp_path: Path):
    checkout = adopted.copy(tmp_path / "linked")
    (checkout.path / "results").rename(tmp_path / "scratch")
    (checkout.path / "results").symlink_to(tmp_path / "scratch")
    found = only(links.check(patient(checkout)), "links")
    assert found.status == WARNING
    assert str(tmp_path / "scratch") in found.message
    assert checkout.would_run("snakemake") == set()
    assert "is outside of git repository" in checkout.run("dvc", "commit", "--force", check=False).stderr
    refused = checkout.run("anchored", "adopt", "--from", "snakemake", check=False)
    assert (refused.returncode, "DVC and git refuse what lies behind links" in refused.stderr) == (5, True)


def test_statistics_that_another_file_switches_on_are_a_warning(made_by: Copy):
    checkout = made_by("dvc")
    assert [found.status for found in network.check(patient(checkout))] == [OK]
    checkout.run("dvc", "config", "--local", "core.analytics", "true")
    (found,) = network.check(patient(checkout))
    assert found.status == WARNING
    assert "sends usage statistics (core.analytics)" in found.message
    assert "core.check_update" not in found.message
