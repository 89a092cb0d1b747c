"""A step knows which image it runs in, and refuses one that was built from other code than the checkout's."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from anchored import image as module
from anchored.errors import EnvironmentFailure, InputError
from anchored.image import WATCHED, image, require_watched_code, watched_code
from anchored.steps import MODULES, PACKAGE, code_digest

TOLD = {"digest": "sha256:1", "sbom": "sha256:2", "variant": "cpu", "base": "debian", "revision": "abcdef0123456789",
        "modified": False}  # fmt: skip


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if this process ran in an image; returns its Python's folder."""
    prefix = tmp_path / "image"
    shutil.copytree(PACKAGE, prefix / "lib" / "anchored", ignore=shutil.ignore_patterns("__pycache__"))
    (prefix / "image.json").write_text(json.dumps(TOLD | {"schema": 1}))
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr(module, "PACKAGE", prefix / "lib" / "anchored")
    monkeypatch.delenv(WATCHED, raising=False)
    return prefix


def test_outside_of_an_image_there_is_none():
    assert image() is None


def test_a_record_takes_over_what_the_image_says_of_itself(inside: Path):
    assert image() == TOLD


def test_code_from_elsewhere_is_none_of_the_image(inside: Path, monkeypatch: pytest.MonkeyPatch):
    """PYTHONPATH would lead to a checkout that is mounted: the digest of the image says nothing of that code."""
    monkeypatch.setattr(module, "PACKAGE", PACKAGE)
    assert image() is None


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_an_image_that_describes_itself_wrongly_is_refused(inside: Path, text: str):
    (inside / "image.json").write_text(text)
    with pytest.raises(InputError, match=r"image\.json does not describe this image"):
        image()


def test_the_engines_tell_the_code_of_every_step():
    told = dict(part.split("=") for part in watched_code().split(","))
    assert told == {step: code_digest(step)[:16] for step in MODULES}


def test_equal_code_runs(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(WATCHED, watched_code())
    for step in MODULES:
        require_watched_code(step, tmp_path)


@pytest.mark.parametrize("built", ["", ", with uncommitted changes"])
def test_an_edit_of_the_checkout_is_no_edit_of_the_image(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str):
    """An old image computed the old numbers under the digest of the new code's commit, if nobody looked."""
    (inside / "image.json").write_text(json.dumps(TOLD | {"modified": bool(built)}))
    monkeypatch.setenv(WATCHED, watched_code().replace(f"tables={code_digest('tables')[:16]}", "tables=0000000000000000"))
    with pytest.raises(EnvironmentFailure) as failure:
        require_watched_code("tables", tmp_path)
    assert f"built from commit abcdef0123{built}; its code of tables is not that of this checkout" in failure.value.message
    assert "containers/build" in failure.value.hint
    require_watched_code("evaluate", tmp_path)


def test_without_an_engine_the_checkout_is_compared(inside: Path, tmp_path: Path):
    shutil.copytree(PACKAGE, tmp_path / "src" / "anchored", ignore=shutil.ignore_patterns("__pycache__"))
    require_watched_code("finetune", tmp_path)
    (tmp_path / "src" / "anchored" / "probe.py").write_text("# edited\n")
    require_watched_code("tables", tmp_path)
    with pytest.raises(EnvironmentFailure, match="code of finetune"):
        require_watched_code("finetune", tmp_path)
    (tmp_path / "src" / "anchored" / "probe.py").unlink()
    with pytest.raises(EnvironmentFailure, match="code of finetune"):
        require_watched_code("finetune", tmp_path)


def test_without_a_checkout_the_image_runs(inside: Path, tmp_path: Path):
    require_watched_code("finetune", tmp_path)


def test_outside_of_an_image_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(WATCHED, "tables=0000000000000000")
    require_watched_code("tables", tmp_path)
