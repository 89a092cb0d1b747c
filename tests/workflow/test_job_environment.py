"""What Snakemake's jobs find around them: programs, progress by lines, a GPU or none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anchored import graph
from anchored.graph import prepare_jobs, visible_gpus
from anchored.progress import progress


def test_jobs_find_the_programs_of_this_python(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setenv("ANCHORED_PROGRESS", "")
    prepare_jobs()
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"


def test_engines_parse_without_heavy_imports():
    """Every job on a cluster parses the Snakefile again."""
    program = "import sys; before = set(sys.modules); import anchored.graph; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"anchored"}


def test_jobs_that_share_a_terminal_draw_no_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("ANCHORED_PROGRESS", "lines")
    with progress("step", 2) as advance:
        advance(2)
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("devices", "chosen", "expected"),
    [((), None, 0), (("nvidia0",), None, 1), (("nvidia0", "nvidia1"), None, 1), (("nvidia0",), "", 0), (("nvidia0",), "-1", 0),
     (("nvidia0",), "0", 1), (("nvidiactl",), None, 0), ((), "0", 0)],
)  # fmt: skip
def test_a_job_asks_for_a_gpu_where_one_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: tuple[str, ...], chosen: str | None, expected: int
):
    for device in devices:
        (tmp_path / device).touch()
    monkeypatch.setattr(graph, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == expected
