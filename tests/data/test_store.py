"""A packed store that is not what its manifest says is one sentence and exit code 3, never a wrong number."""

import json

import pytest

from anchored.data.store import open_store
from anchored.errors import InputError


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _manifest(**changes):
    def change(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


DAMAGES = {
    "images missing": ("images.npy", lambda path: path.unlink(), "images.npy is missing"),
    "index missing": ("index.parquet", lambda path: path.unlink(), "index.parquet is missing"),
    "manifest missing": ("manifest.json", lambda path: path.unlink(), "manifest.json is missing"),
    "images truncated": ("images.npy", _truncate, "images.npy differs from its manifest (truncated or changed)"),
    "images altered": ("images.npy", _flip_a_bit, "images.npy differs from its manifest (truncated or changed)"),
    "index truncated": ("index.parquet", _truncate, "index.parquet differs from its manifest"),
    "index altered": ("index.parquet", _flip_a_bit, "index.parquet differs from its manifest"),
    "images empty": ("images.npy", lambda path: path.write_bytes(b""), "images.npy differs from its manifest"),
    "manifest truncated": ("manifest.json", _truncate, "manifest.json is not valid JSON"),
    "manifest empty": ("manifest.json", lambda path: path.write_text("{}"), "manifest.json is no manifest of a store"),
    "manifest of another kind": ("manifest.json", lambda path: path.write_text("[1]"), "manifest.json is no manifest of a store"),
    "manifest altered": ("manifest.json", _manifest(shape=[1, 20, 20, 3]), "is inconsistent"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(name, mini_copy):
    """A silently shortened memory map once gave images of zeros."""
    file, damage, expected = DAMAGES[name]
    damage(mini_copy.data("scenes") / file)
    with pytest.raises(InputError) as caught:
        open_store(mini_copy.data("scenes"))
    assert expected in caught.value.message
    assert caught.value.exit_code == 3
    assert "anchored prepare scenes" in caught.value.hint


def test_missing_layer_says_what_to_do(mini):
    """Background swaps need masks; the labelled dataset has none."""
    with pytest.raises(InputError, match="dataset 'scenes' has no layer 'mask'") as caught:
        open_store(mini.data("scenes")).layer("mask")
    assert "views.background_swap" in caught.value.hint


def test_missing_split(mini):
    """An own dataset without a val split must not be selected on nothing."""
    with pytest.raises(InputError, match="has no images of split 'dev', draw 0"):
        open_store(mini.data("scenes")).rows("dev", 0)
