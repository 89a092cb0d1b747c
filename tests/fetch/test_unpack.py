"""Archives of an enemy: nothing is written outside of the folder, and nothing stays behind."""

import errno
import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from fetch_cases import tar_gz
from hypothesis import given, settings
from hypothesis import strategies as st

from anchored.errors import EnvironmentFailure, InputError
from anchored.fetch.sources import Unpack
from anchored.fetch.unpack import unpack

FILES = {
    "birds/metadata.csv": b"img_filename,y\na.jpg,0\n",
    "birds/001/a.jpg": b"\xff\xd8" + bytes(3000),
    "birds/002/b.jpg": b"bird" * 700,
}


def rules(form: str, **values) -> Unpack:
    return Unpack(**{"format": form, "root": None, "at_most": 100_000, "members": 20} | values)


def zipped(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return raw.getvalue()


def packed(form: str, files: dict[str, bytes]) -> bytes:
    if form == "zip":
        return zipped(files)
    data = tar_gz(files)
    return data if form == "tar.gz" else gzip.decompress(data)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(folder: Path, data: bytes) -> Path:
    path = folder / "archive"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_honest_archive(tmp_path, form):
    """Every file with its bytes, the mode of any new file, and the folder inside the archive as the target if asked."""
    archive = put(tmp_path, packed(form, FILES))
    assert unpack(archive, tmp_path / "out", rules(form)) == 3
    assert tree(tmp_path / "out") == FILES
    assert unpack(archive, tmp_path / "inner", rules(form, root="birds")) == 3
    assert tree(tmp_path / "inner") == {name.removeprefix("birds/"): data for name, data in FILES.items()}


def test_entries_outside_of_the_root_are_left_out(tmp_path):
    """macOS packs notes of its own beside the folder."""
    archive = put(tmp_path, tar_gz({"._birds": b"notes", "./birds/a": b"1"}))
    assert unpack(archive, tmp_path / "out", rules("tar.gz", root="birds")) == 1
    assert tree(tmp_path / "out") == {"a": b"1"}
    with pytest.raises(InputError, match="holds no file below 'cats'; 2 entries lie elsewhere"):
        unpack(archive, tmp_path / "none", rules("tar.gz", root="cats"))


def member(name: str, **values) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    data = values.pop("data", b"")
    info.size = len(data)
    for key, value in values.items():
        setattr(info, key, value)
    return info, data


EVIL = {
    "above": [member("../evil", data=b"x")],
    "above, deep": [member("a/b/../../../evil", data=b"x")],
    "absolute": [member("/tmp/evil", data=b"x")],
    "backslash": [member("a\\..\\evil", data=b"x")],
    "drive": [member("C:/evil", data=b"x")],
    "newline": [member("a\nb", data=b"x")],
    "symlink": [member("link", type=tarfile.SYMTYPE, linkname="/etc"), member("link/evil", data=b"x")],
    "hard link": [member("a", data=b"x"), member("b", type=tarfile.LNKTYPE, linkname="a")],
    "character device": [member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [member("disk", type=tarfile.BLKTYPE)],
    "fifo": [member("pipe", type=tarfile.FIFOTYPE)],
    "file twice": [member("a", data=b"1"), member("a", data=b"2")],
    "file as folder": [member("a", data=b"1"), member("a/b", data=b"2")],
    "folder as file": [member("a/b", data=b"1"), member("a", data=b"2")],
    "too many": [member(f"f{number}", data=b"x") for number in range(21)],
    "too large": [member("a", data=bytes(60_000)), member("b", data=bytes(60_000))],
    "huge name": [member("n" * 400_000, data=b"x")],
    "empty": [],
}


@pytest.mark.parametrize("case", EVIL)
@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_evil_tar(tmp_path, case, form):
    """Each is refused by name, and the folder is as if nothing had happened."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz" if form == "tar.gz" else "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(*plain) if (plain := member("first")) and case != "empty" else None
        for info, data in EVIL[case]:
            archive.addfile(info, io.BytesIO(data))
    (tmp_path / "here").mkdir()
    path = put(tmp_path / "here", raw.getvalue())
    # bound for headers: 4 kB an entry and 1 MiB; a smaller one here, so that the huge name is beyond it
    bounds = rules(form, at_most=100_000) if case != "huge name" else rules(form, at_most=1, members=1)
    with pytest.raises(InputError) as raised:
        unpack(path, tmp_path / "here" / "out", bounds)
    assert str(path) in raised.value.message
    assert [entry.name for entry in tmp_path.rglob("*")] == ["here", "archive"]
    if case == "symlink":
        assert "'link', which is a link or a device" in raised.value.message
    if case == "too large":
        assert "unpacks to more than 100.0 kB, at 'b'" in raised.value.message


def test_header_bomb(tmp_path):
    """A long name is read into memory before anybody sees its length; the stream's own bound ends that."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(*member("n" * 4_000_000))
    assert len(raw.getvalue()) < 50_000
    with pytest.raises(InputError, match="unpacks to more than it may"):
        unpack(put(tmp_path, raw.getvalue()), tmp_path / "out", rules("tar.gz"))


def test_no_setuid_and_no_foreign_owner(tmp_path):
    """Modes of an archive are the packer's wishes."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        info, data = member("tool", data=b"x", mode=0o6777, uid=4242, gid=4242)
        archive.addfile(info, io.BytesIO(data))
    unpack(put(tmp_path, raw.getvalue()), tmp_path / "out", rules("tar"))
    status = (tmp_path / "out/tool").stat()
    assert stat.S_IMODE(status.st_mode) & 0o7111 == 0
    assert status.st_uid == os.getuid()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "C:/evil"])
def test_evil_names_in_a_zip(tmp_path, name):
    """As in a tar."""
    with pytest.raises(InputError, match="a path that leaves its folder"):
        unpack(put(tmp_path, zipped({name: b"x"})), tmp_path / "out", rules("zip"))
    assert [entry.name for entry in tmp_path.rglob("*")] == ["archive"]


def test_link_in_a_zip(tmp_path):
    """A zip file stores links as files with a mode."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="'link', which is a link or a device"):
        unpack(put(tmp_path, raw.getvalue()), tmp_path / "out", rules("zip"))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_inside_of_a_zip(tmp_path, method):
    """Every compression has an error of its own."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        archive.writestr("a", b"".join(FILES.values()))
    data = bytearray(raw.getvalue())
    data[50:60] = b"\xff" * 10
    with pytest.raises(InputError, match="archive is truncated or damaged"):
        unpack(put(tmp_path, bytes(data)), tmp_path / "out", rules("zip"))
    assert [entry.name for entry in tmp_path.rglob("*")] == ["archive"]


def test_zip_bomb(tmp_path):
    """Ten megabytes in ten kilobytes."""
    archive = put(tmp_path, zipped({"zeros": bytes(10_000_000)}))
    assert archive.stat().st_size < 20_000
    with pytest.raises(InputError, match=r"unpacks to more than 100\.0 kB, at 'zeros'"):
        unpack(archive, tmp_path / "out", rules("zip"))
    assert not (tmp_path / "out").exists()


def test_zip_that_lies_about_a_size(tmp_path):
    """Announced: 10 bytes; packed: 10 MB. Nothing beyond the announced size is written."""
    data = zipped({"zeros": bytes(10_000_000)})
    true, false = (10_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    assert data.count(true) == 2
    with pytest.raises(InputError, match="truncated or damaged"):
        unpack(put(tmp_path, data.replace(true, false)), tmp_path / "out", rules("zip"))
    assert not (tmp_path / "out").exists()


def test_encrypted_zip(tmp_path):
    """No password will come."""
    data = bytearray(zipped({"a": b"x"}))
    for at in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[at] |= 1
    with pytest.raises(InputError, match="'a', which is encrypted"):
        unpack(put(tmp_path, bytes(data)), tmp_path / "out", rules("zip"))


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_truncated_archive_leaves_nothing(tmp_path_factory, form, data):
    """Cut anywhere, also between two members, where tarfile sees no fault; only padding behind the end may be missing."""
    folder = tmp_path_factory.mktemp("cut")
    whole = packed(form, FILES)
    end = len(whole)
    if form == "tar":  # two blocks of zeros mark the end, then more of them fill up; one block is enough to know
        end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    cut = data.draw(st.integers(0, end - 1))
    with pytest.raises(InputError):
        unpack(put(folder, whole[:cut]), folder / "out", rules(form))
    assert [path.name for path in folder.iterdir()] == ["archive"]


def test_tar_cut_between_two_members(tmp_path):
    """Every block boundary: tarfile lists what is there and says nothing."""
    whole = packed("tar", FILES)
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for cut in range(512, end + 1, 512):
        with pytest.raises(InputError, match="truncated or damaged"):
            unpack(put(tmp_path, whole[:cut]), tmp_path / "out", rules("tar"))
    assert unpack(put(tmp_path, whole[: end + 512]), tmp_path / "out", rules("tar")) == 3


def test_damaged_header_in_the_middle(tmp_path):
    """tarfile takes it for the end and says nothing: half of a dataset."""
    data = bytearray(packed("tar", FILES))
    second = data.index(b"birds/001/a.jpg")
    data[second + 148 : second + 156] = b"\1" * 8  # its checksum
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as archive:
        assert len(archive.getnames()) == 1
    with pytest.raises(InputError, match="truncated or damaged"):
        unpack(put(tmp_path, bytes(data)), tmp_path / "out", rules("tar"))


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    """The archive stays, the half-unpacked folder goes."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("anchored.fetch.unpack._copy", full)
    with pytest.raises(EnvironmentFailure, match="no space left on device"):
        unpack(put(tmp_path, tar_gz(FILES)), tmp_path / "out", rules("tar.gz"))
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
