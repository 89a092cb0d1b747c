"""Pushing a finished study and pulling it, for real: a folder as the remote, and an SSH server; and what breaks on the way."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import Checkout
from dvc_remote import Remote, clone_of, contents, publish
from requirement import unavailable
from ssh_server import SshServer, missing_programs

pytestmark = [pytest.mark.workflow, pytest.mark.parametrize("adopted", ["dvc"], indirect=True)]
FIM = "results/fim/fim/fim.safetensors"


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if missing := missing_programs():
        unavailable("ssh", f"{' and '.join(missing)} missing: install openssh-server and openssh-client")
    server = SshServer(tmp_path_factory.mktemp("ssh")).start()
    yield server
    server.stop()


@pytest.fixture
def remote(ssh_server: SshServer, tmp_path: Path) -> Remote:
    """An empty folder behind the SSH server."""
    return Remote(tmp_path / "remote", ssh_server.url(tmp_path / "remote"), ssh_server.key)


@pytest.fixture
def publisher(adopted: Checkout, tmp_path: Path) -> Checkout:
    """A finished study that both engines know, before its first push."""
    return adopted.copy(tmp_path / "publisher")


@pytest.mark.ssh
def test_a_fresh_clone_pulls_over_ssh_and_both_engines_have_nothing_to_do(publisher: Checkout, remote: Remote, tmp_path: Path):
    publish(publisher, remote)
    assert "keyfile" not in (publisher.path / ".dvc" / "config").read_text()
    clone = clone_of(publisher, remote, tmp_path / "elsewhere" / "clone")
    assert not (clone.path / "results" / "runs").exists()
    clone.run("dvc", "pull")
    assert contents(clone) == contents(publisher)
    assert "up to date" in clone.run("dvc", "status").stdout
    assert clone.run("git", "status", "--porcelain").stdout == ""
    clone.run("anchored", "adopt", "--from", "dvc")
    assert clone.would_run("snakemake") == set()
    assert clone.would_run("dvc") == set()


@pytest.mark.parametrize("url", ["ssh://nobody@127.0.0.1:1/nowhere", "{folder}/file"], ids=["nobody listens", "no folder"])
def test_a_remote_out_of_reach_leaves_the_results_alone(publisher: Checkout, tmp_path: Path, url: str):
    (tmp_path / "file").write_text("in the way of a folder")
    remote = Remote(tmp_path / "file", url.format(folder=tmp_path))
    publisher.run(*remote.commands()[0].split())
    publisher.commit("Results")
    before = contents(publisher)
    assert publisher.run("dvc", "push", check=False).returncode
    assert contents(publisher) == before
    assert "up to date" in publisher.run("dvc", "status").stdout
    clone = publisher.clone(tmp_path / "elsewhere" / "clone")
    kept = contents(clone)
    assert clone.run("dvc", "pull", check=False).returncode
    assert contents(clone) == kept


@pytest.mark.ssh
def test_an_interrupted_push_continues(publisher: Checkout, remote: Remote, tmp_path: Path):
    """Killed without a chance to clean up; half a file must never be taken for a whole one."""
    for command in remote.commands():
        publisher.run(*command.split())
    publisher.commit("Results")
    push = ["dvc", "push", "--jobs", "1"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(push, cwd=publisher.path, env=publisher.environment, stdout=quiet, stderr=quiet)
    while len(remote.objects()) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    some = len(remote.objects())
    publisher.run("dvc", "push")
    assert 3 <= some < len(remote.objects())
    clone = clone_of(publisher, remote, tmp_path / "elsewhere" / "clone")
    clone.run("dvc", "pull")
    assert contents(clone) == contents(publisher)


@pytest.mark.ssh
def test_a_file_that_was_damaged_in_the_remote_is_never_used(publisher: Checkout, remote: Remote, tmp_path: Path):
    """By itself DVC believes what an SSH remote sends; the record beside the file does not."""
    publish(publisher, remote)
    damaged = remote.stored(publisher, FIM)
    whole = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    trusting = clone_of(publisher, remote, tmp_path / "trusting" / "clone")
    trusting.run("dvc", "remote", "modify", "--local", "storage", "verify", "false")
    trusting.run("dvc", "pull")
    assert (trusting.path / FIM).read_bytes() != whole
    assert "up to date" in trusting.run("dvc", "status").stdout
    refused = trusting.run("anchored", "adopt", "--from", "dvc", check=False)
    assert refused.returncode == 3
    assert "1 of 11 steps have no up-to-date result: fim-merge fim" in refused.stderr
    assert "their records tell other bytes: the remote is damaged" in refused.stderr
    told = trusting.run("anchored", "doctor", check=False)
    assert told.returncode == 5
    assert "have results that are not what their records say: fim-merge fim" in told.stdout

    careful = clone_of(publisher, remote, tmp_path / "careful" / "clone")
    assert careful.run("dvc", "pull", check=False).returncode
    assert not (careful.path / FIM).exists()
    damaged.unlink(missing_ok=True)
    publisher.run("dvc", "push")
    careful.run("dvc", "pull")
    assert contents(careful) == contents(publisher)


@pytest.mark.ssh
def test_the_server_is_not_asked_who_it_is(publisher: Checkout, remote: Remote, ssh_server: SshServer):
    """docs/dvc.md warns of it: DVC takes any host key. Should that change, the page must."""
    publish(publisher, remote)
    ssh_server.stop()
    ssh_server.change_identity()
    ssh_server.start()
    shutil.rmtree(remote.folder)
    publisher.run("dvc", "push")
    assert remote.objects()
