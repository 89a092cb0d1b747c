"""Whole files or none, and digests that depend on content only."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchored.errors import EnvironmentFailure, InputError
from anchored.files import (
    disk_failure,
    file_digest,
    json_text,
    read_json,
    replace_folder,
    replacing,
    value_digest,
    write_bytes,
    write_json,
    write_text,
)
from anchored.paths import Paths


def _fail_half_way(path: Path, failure: BaseException) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise failure


def test_failure_leaves_the_old_file_and_no_temporary(tmp_path):
    """A reader must see the old file or the new one, whatever happens to the writer."""
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    for failure in (RuntimeError("x"), KeyboardInterrupt()):
        with pytest.raises(type(failure)):
            _fail_half_way(path, failure)
        assert path.read_text() == "old"
        assert os.listdir(path.parent) == ["file.txt"]
    write_text(path, "neu é")
    assert path.read_bytes() == "neu é".encode()
    assert os.listdir(path.parent) == ["file.txt"]


def test_reader_never_sees_a_part(tmp_path):
    """While the temporary grows, the target stays as it was."""
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new, only ha")
        assert temporary.parent == path.parent, "a rename across file systems is a copy"
        assert path.read_bytes() == b"old"
        temporary.write_bytes(b"new, all of it")
        written = temporary.stat().st_ino
    assert path.read_bytes() == b"new, all of it"
    assert path.stat().st_ino == written, "copied, not renamed: a reader could have seen a part"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_the_environment_s_fault(tmp_path, number):
    """Exit code 5 tells a cluster to try elsewhere; the sentence says that nothing was left behind."""
    path = tmp_path / "file.bin"
    with pytest.raises(EnvironmentFailure, match=f"cannot write {path}: {os.strerror(number).lower()}") as caught, replacing(path):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == 5
    assert "nothing was left half-written" in caught.value.hint


def test_missing_permission_is_named():
    """Another user's results folder, or a read-only file system."""
    failure = disk_failure(Path("a/b"), PermissionError(errno.EACCES, "no"))
    assert isinstance(failure, EnvironmentFailure)
    assert failure.message == "cannot write a/b: permission denied."
    other = OSError(errno.EIO, "no")
    assert disk_failure(Path("a/b"), other) is other, "an unknown error keeps its own traceback"


def test_file_in_place_of_a_folder(tmp_path):
    """`results` that is a file: an error, and the file survives."""
    (tmp_path / "results").write_text("mine")
    with pytest.raises(OSError, match="results"):
        write_text(tmp_path / "results" / "x.txt", "text")
    assert (tmp_path / "results").read_text() == "mine"


def test_what_a_killed_process_left_is_not_in_the_way(tmp_path):
    """In containers every process has the same number: a folder under the old name would stop all later ones."""
    left = tmp_path / f".set.{os.getpid()}.old"
    for folder in (tmp_path / "built", tmp_path / "set", left):
        folder.mkdir()
        (folder / folder.name).write_text("x")
    replace_folder(tmp_path / "built", tmp_path / "set")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["set", "set/built"]


def test_json_is_strict_and_stable(tmp_path):
    """NaN is no JSON: other readers refuse the whole file."""
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None, "é"]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1,\n  "a": [\n    1.5,\n    null,\n    "é"\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"x": float("nan")})
    assert read_json(tmp_path / "a.json", made_by="x") == {"b": 1, "a": [1.5, None, "é"]}


def test_unreadable_json_names_the_command(tmp_path):
    """Missing, cut short, and bytes that are no text."""
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match="is missing") as caught:
        read_json(path, made_by="anchored x")
    assert caught.value.hint == "run `anchored x`."
    for content in (b"", b'{"a": 1', b"\xff"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not valid JSON") as caught:
            read_json(path, made_by="anchored x")
        assert caught.value.hint == "remove it and run `anchored x`."


LEAF = st.none() | st.integers() | st.text(max_size=3)
KEY = st.text(max_size=3)
JSON = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3), max_leaves=6)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(KEY, JSON, max_size=4))
def test_value_digest_ignores_the_order_of_keys_only(value):
    """A record's key must survive a re-ordered plan, and nothing else."""
    backwards = json.loads(json.dumps(value), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert value_digest(backwards) == value_digest(value)
    assert value_digest([value]) != value_digest(value)
    assert value_digest({**value, "one more": 1}) != value_digest(value) or value.get("one more") == 1


def test_file_digest_is_sha256(tmp_path):
    """Users compare it with `sha256sum`."""
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert file_digest(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_paths_stay_below_their_root():
    """One folder to mount, to move and to delete."""
    paths = Paths(Path("base"))
    found = [
        paths.data("d"), paths.backbone("b"), paths.fim("f"), paths.run("r"), paths.metrics, paths.metrics_csv,
        paths.comparisons, paths.selected, paths.tables, paths.figures, paths.report,
    ]  # fmt: skip
    assert all(path.is_relative_to("base/results") for path in found)
    assert len(set(found)) == len(found)
    assert paths.work("c") == Path("base/work/c")
    assert paths.log("fim", "f") == Path("base/logs/fim/f.log")
