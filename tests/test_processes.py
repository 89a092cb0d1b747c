"""Processes of this machine, with real ones."""

import subprocess
import sys
import time
from pathlib import Path

from anchored.processes import children, running

SLEEP = "import time; time.sleep(60)"


def test_children_that_ended_do_not_count():
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{SLEEP}']).wait()"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        end = time.monotonic() + 30
        while children(parent.pid) != 1 and time.monotonic() < end:
            time.sleep(0.05)
        assert children(parent.pid) == 1
        subprocess.run(["pkill", "-P", str(parent.pid)], check=True)
        assert parent.wait(30) is not None
        assert children(parent.pid) == 0
    finally:
        parent.kill()


def test_a_module_counts_as_a_program(tmp_path: Path):
    (tmp_path / "snakemake.py").write_text(SLEEP)
    process = subprocess.Popen([sys.executable, "-m", "snakemake"], cwd=tmp_path)
    try:
        end = time.monotonic() + 30
        while running("snakemake", tmp_path) != [process.pid] and time.monotonic() < end:
            time.sleep(0.05)
        assert running("snakemake", tmp_path) == [process.pid]
    finally:
        process.kill()
        process.wait()
