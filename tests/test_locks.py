"""Two processes at the same thing."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from anchored.errors import EnvironmentFailure
from anchored.locks import exclusive, in_cluster_job
from anchored.paths import Paths

HOLD = "import sys; from anchored.locks import exclusive; from anchored.paths import Paths; from pathlib import Path\n" \
       "with exclusive('fim x', Paths(Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"  # fmt: skip


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_turned_away(holder, tmp_path: Path):
    with pytest.raises(EnvironmentFailure, match="another process is running fim x"), exclusive("fim x", Paths(tmp_path)):
        pass


def test_a_second_process_of_a_cluster_waits_for_the_end_of_the_first(holder, tmp_path: Path):
    """A node that was cut off computes on, while SLURM starts its job elsewhere."""
    command = [sys.executable, "-c", HOLD.replace("argv[1]))", "argv[1])), wait=True"), str(tmp_path)]
    second = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    time.sleep(3)
    assert second.poll() is None
    holder.kill()
    assert second.communicate(timeout=60)[0] == b"held\n"


def test_slurm_says_what_a_cluster_job_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not in_cluster_job()
    monkeypatch.setenv("SLURM_JOB_ID", "47")
    assert in_cluster_job()
