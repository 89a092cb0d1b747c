"""Files out of wheels: downloaded by pip, checked, read one by one."""

import sys
import zipfile
from pathlib import Path

import pytest
from debian_cases import digest

from anchored.errors import EnvironmentFailure, InputError
from anchored.fetch import pypi
from anchored.fetch.pypi import Wheel, read_member, wheel_file

NAME = "tiny_model-1.0-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "wheels" / NAME
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/model.onnx", b"weights" * 100)
        archive.writestr("../../evil", b"evil")
    return path


def reviewed(path: Path) -> Wheel:
    return Wheel("tiny-model", "1.0", NAME, digest(path.read_bytes()))


def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A stand-in for the interpreter that runs `-m pip download ... --dest FOLDER NAME==VERSION`."""
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))


def test_one_member_is_read_and_nothing_is_unpacked(wheel: Path):
    data = b"weights" * 100
    assert read_member(wheel, "tiny/model.onnx", sha256=digest(data)) == data
    assert [path.name for path in wheel.parent.parent.rglob("*")] == ["wheels", NAME]


@pytest.mark.parametrize(
    ("member", "sentence"), [("tiny/other.onnx", r"holds no tiny/other\.onnx"), ("tiny/model.onnx", "the reviewed one 0000")]
)
def test_a_member_that_is_absent_or_another_is_refused(wheel: Path, member: str, sentence: str):
    with pytest.raises(InputError, match=sentence):
        read_member(wheel, member, sha256="0" * 64)


def test_a_member_larger_than_memory_is_refused(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pypi, "_LIMIT", 699)
    with pytest.raises(InputError, match="announces 700 bytes, over the 699"):
        read_member(wheel, "tiny/model.onnx", sha256="0" * 64)


@pytest.mark.parametrize("damage", [b"<html>", None])
def test_a_damaged_wheel_is_refused(wheel: Path, damage: bytes | None):
    data = bytearray(wheel.read_bytes())
    data[45:49] = b"\xff\xff\xff\xff"
    wheel.write_bytes(damage or bytes(data))
    with pytest.raises(InputError, match="cannot be read"):
        read_member(wheel, "tiny/model.onnx", sha256="0" * 64)


def test_a_wheel_in_the_cache_is_checked_and_not_downloaded(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pip(tmp_path, monkeypatch, "exit 9")
    assert wheel_file(reviewed(wheel), wheel.parent) == wheel
    with pytest.raises(InputError, match=r"the reviewed tiny-model 1\.0 has 0000"):
        wheel_file(Wheel("tiny-model", "1.0", NAME, "0" * 64), wheel.parent)


def test_pip_brings_the_wheel_and_no_dependencies(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check = 'case "$*" in *--no-deps*--dest*tiny-model==1.0) ;; *) exit 1;; esac'
    pip(tmp_path, monkeypatch, f'{check}\nwhile [ "$1" != --dest ]; do shift; done\ncp {wheel} "$2"')
    found = wheel_file(reviewed(wheel), tmp_path / "cache")
    assert found.read_bytes() == wheel.read_bytes()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [NAME]


def test_a_failed_download_says_why_and_what_to_do(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pip(tmp_path, monkeypatch, "echo 'ERROR: no tiny-model at https://u:secret@example.org/simple?token=secret' >&2; exit 1")
    with pytest.raises(EnvironmentFailure, match=r"cannot download tiny-model 1\.0: ERROR: no tiny-model") as caught:
        wheel_file(reviewed(wheel), tmp_path / "cache")
    assert "secret" not in str(caught.value)
    assert f"place it in {tmp_path / 'cache'}" in caught.value.hint
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_pip_the_error_says_what_to_do(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pypi.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match="pip is not installed") as caught:
        wheel_file(reviewed(wheel), tmp_path / "cache")
    assert caught.value.exit_code == 5
