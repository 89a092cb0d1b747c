"""Qt resource archives: every file comes back, and an archive that contradicts itself is refused."""

import struct
import zlib
from contextlib import suppress

import pytest
from debian_cases import rcc
from hypothesis import given
from hypothesis import strategies as st

from anchored.fetch.qt_resources import BadArchive, ResourceArchive

FILES = {"a/b/one.webp": b"one" * 50, "a/two.webp": b"", "a/b/c/three.txt": bytes(range(256)), "four": b"4"}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_file_comes_back(version: int, packed: bool):
    archive = ResourceArchive(rcc(FILES, version=version, packed=packed))
    assert {path: archive.read(path) for path in archive.files} == FILES


def test_a_name_that_is_absent_is_a_key_error():
    with pytest.raises(KeyError):
        ResourceArchive(rcc(FILES)).read("a/b/two.webp")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "header: offset 0 is outside the archive of 0 bytes"),
        (b"PK\3\4" + bytes(40), "no Qt resource archive"),
        (struct.pack(">4s4I", b"qres", 9, 20, 20, 20) + bytes(40), "version 9"),
        (struct.pack(">4s4I", b"qres", 3, 1 << 31, 20, 20) + bytes(40), "entry 0 under / is outside the tree"),
    ],
)
def test_what_is_no_archive_is_refused(data: bytes, sentence: str):
    with pytest.raises(BadArchive, match=sentence):
        ResourceArchive(data)


@pytest.mark.parametrize("name", ["..", ".", "x/y"])
def test_a_name_that_is_no_file_name_is_refused(name: str):
    """A path is only a key here, but the next reader may write it to a disk."""
    data = rcc({"one": b"1", "a" * len(name): b"2"}).replace(("a" * len(name)).encode("utf-16-be"), name.encode("utf-16-be"))
    with pytest.raises(BadArchive, match="is no file name"):
        ResourceArchive(data)


def test_a_folder_that_holds_itself_is_refused():
    header = struct.pack(">4s4I", b"qres", 1, 20, 48, 34)
    folder = struct.pack(">IHII", 0, 2, 1, 0)
    with pytest.raises(BadArchive, match="met twice"):
        ResourceArchive(header + folder + struct.pack(">HI", 1, 0) + "a".encode("utf-16-be"))


def test_a_folder_of_four_thousand_million_entries_is_refused():
    header = struct.pack(">4s4I", b"qres", 1, 20, 34, 34)
    with pytest.raises(BadArchive, match="announces 4294967295 entries"):
        ResourceArchive(header + struct.pack(">IHII", 0, 2, 0xFFFFFFFF, 1) + bytes(14))


def test_a_file_unpacks_to_what_it_announces_or_not_at_all():
    """A few bytes can unpack to gigabytes: nothing is unpacked beyond the announced size, and that is bounded."""
    honest = rcc({"bomb": b"0" * 100_000})
    archive = ResourceArchive(honest)
    with pytest.raises(BadArchive, match="over 99999 bytes"):
        archive.read("bomb", limit=99_999)
    lying = honest.replace(struct.pack(">I", 100_000), struct.pack(">I", 10))
    with pytest.raises(BadArchive, match="does not unpack to the 10 bytes"):
        ResourceArchive(lying).read("bomb")


def test_a_damaged_stream_is_refused():
    data = rcc({"one": b"1" * 100})
    packed = zlib.compress(b"1" * 100)
    with pytest.raises(BadArchive, match="one: Error -3"):
        ResourceArchive(data.replace(packed, b"\0" * len(packed))).read("one")


@given(cut=st.integers(0, 400), place=st.integers(0, 400), value=st.integers(0, 255))
def test_damage_anywhere_is_a_bad_archive_or_harmless(cut: int, place: int, value: int):
    data = bytearray(rcc(FILES))
    if place < len(data):
        data[place] = value
    data = data[: max(len(data) - cut, 0)] if cut < 40 else data
    with suppress(BadArchive):
        archive = ResourceArchive(bytes(data))
        for path in archive.files:
            archive.read(path)
