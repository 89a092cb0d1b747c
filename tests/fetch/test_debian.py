"""Debian packages: single files are read into memory, nothing else of a package is believed."""

import shutil
import tarfile
from pathlib import Path

import pytest
from debian_cases import deb, digest, place

from anchored.errors import EnvironmentFailure, InputError
from anchored.fetch.debian import Package, package_file, read_members

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")

PICTURE = "usr/share/birds/duck.png"
ABSENT = Package(version="1.0-1", sha256="0" * 64, bytes=1, licence="GPL-2+")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds only dpkg-deb and what it calls; tests add their own apt-get."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dpkg-deb", "tar", "sh", "cp", "cat"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def apt_get(programs: Path, script: str) -> None:
    file = programs / "apt-get"
    file.write_text(f"#!{programs / 'sh'}\n{script}\n")
    file.chmod(0o755)


def test_wanted_files_are_read_and_others_are_not(tmp_path: Path):
    package = tmp_path / "birds_1_all.deb"
    package.write_bytes(deb("birds", "1", {PICTURE: b"duck", "usr/share/birds/crow.png": b"crow", "usr/bin/birds": b"#!"}))
    assert read_members(package, [PICTURE, "usr/share/birds/owl.png"]) == {PICTURE: b"duck"}
    assert [path.name for path in tmp_path.iterdir()] == [package.name]


def test_reading_stops_when_all_are_found(tmp_path: Path):
    """What follows the last wanted file can be a hundred megabytes, and may even be damaged."""
    package = tmp_path / "birds_1_all.deb"
    whole = deb("birds", "1", {PICTURE: b"duck", "usr/share/birds/large": bytes(4 << 20)})
    package.write_bytes(whole[: len(whole) - (1 << 20)])
    assert read_members(package, [PICTURE]) == {PICTURE: b"duck"}
    with pytest.raises(InputError, match="cannot be unpacked: ") as caught:
        read_members(package, [PICTURE, "usr/share/birds/large"])
    assert caught.value.hint == "remove the file and run the same command again."


def test_padding_after_the_last_member_is_no_damage(tmp_path: Path):
    """dpkg-deb complains when its reader leaves before the end, as it does of a damaged package."""
    package = tmp_path / "birds_1_all.deb"
    package.write_bytes(deb("birds", "1", {PICTURE: b"duck"}, padding=1 << 20))
    assert read_members(package, [PICTURE, "usr/share/birds/owl.png"]) == {PICTURE: b"duck"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_wanted_file_that_is_none_is_refused(tmp_path: Path, kind: bytes):
    """A link could name any file of the machine."""
    link = tarfile.TarInfo(PICTURE)
    link.type, link.linkname = kind, "/etc/passwd"
    package = tmp_path / "birds_1_all.deb"
    package.write_bytes(deb("birds", "1", {PICTURE: link}))
    with pytest.raises(InputError, match=r"duck\.png is a link or a device, not a file"):
        read_members(package, [PICTURE])


def test_paths_that_leave_the_package_are_never_written(tmp_path: Path):
    """Members reach memory only, under the name that was asked for."""
    package = tmp_path / "in" / "birds_1_all.deb"
    package.parent.mkdir()
    package.write_bytes(deb("birds", "1", {"../../evil": b"evil", "/evil": b"evil", PICTURE: b"duck"}))
    assert read_members(package, [PICTURE, "evil"]) == {PICTURE: b"duck"}
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["in", "in/birds_1_all.deb"]


def test_a_member_that_announces_more_than_memory_is_refused(tmp_path: Path):
    large = tarfile.TarInfo(PICTURE)
    large.size = 1 << 40
    package = tmp_path / "birds_1_all.deb"
    package.write_bytes(deb("birds", "1", {PICTURE: large}))
    with pytest.raises(InputError, match="has 1099511627776 bytes, over the 67108864"):
        read_members(package, [PICTURE])


def test_a_file_that_is_no_package_is_refused(tmp_path: Path):
    package = tmp_path / "birds_1_all.deb"
    package.write_bytes(b"<html><title>404 Not Found</title></html>" * 9)
    with pytest.raises(InputError, match=r"birds_1_all\.deb cannot be unpacked: .*not a Debian format archive"):
        read_members(package, [PICTURE])


def test_the_reviewed_package_in_the_cache_needs_no_apt(tmp_path: Path, programs: Path):
    reviewed = place(tmp_path / "cache", "birds", "1:2.0-1", {PICTURE: b"duck"})
    place(tmp_path / "cache", "birds", "3.0-1", {PICTURE: b"another"})
    found = package_file("birds", reviewed, tmp_path / "cache")
    assert (found.version, found.as_reviewed) == ("1:2.0-1", True)
    assert found.path.name == "birds_1%3a2.0-1_all.deb"


def test_another_version_says_so(tmp_path: Path, programs: Path):
    other = place(tmp_path / "cache", "birds", "3.0-1", {PICTURE: b"duck"})
    found = package_file("birds", ABSENT, tmp_path / "cache")
    assert not found.as_reviewed
    assert found.differs() == (
        f"birds 3.0-1 (sha256 {other.sha256[:16]}) is not the reviewed package, 1.0-1 (sha256 0000000000000000)"
    )


def test_another_package_under_the_name_is_refused(tmp_path: Path, programs: Path):
    (tmp_path / "birds_1_all.deb").write_bytes(deb("fishes", "1", {}))
    with pytest.raises(InputError, match="is not the Debian package birds: it is the package fishes"):
        package_file("birds", ABSENT, tmp_path)


def test_without_apt_the_error_says_what_to_do(tmp_path: Path, programs: Path):
    with pytest.raises(EnvironmentFailure, match="apt-get is not installed: this source is built from Debian packages") as caught:
        package_file("birds", ABSENT, tmp_path / "cache")
    assert caught.value.exit_code == 5
    assert f"the .deb files are already in {tmp_path / 'cache'}" in caught.value.hint


def test_without_dpkg_the_error_says_what_to_do(tmp_path: Path, programs: Path):
    place(tmp_path, "birds", "1", {})
    (programs / "dpkg-deb").unlink()
    with pytest.raises(EnvironmentFailure, match="dpkg-deb is not installed"):
        read_members(tmp_path / "birds_1_all.deb", [PICTURE])


def test_empty_package_lists_are_explained(tmp_path: Path, programs: Path):
    apt_get(programs, "echo 'W: a warning' >&2; echo 'E: Unable to locate package birds' >&2; exit 100")
    with pytest.raises(EnvironmentFailure, match="apt-get cannot download birds: E: Unable to locate package birds") as caught:
        package_file("birds", ABSENT, tmp_path / "cache")
    for part in ("apt-get update", "snapshot.debian.org", ABSENT.sha256, f"place the .deb file in {tmp_path / 'cache'}"):
        assert part in caught.value.hint
    assert list((tmp_path / "cache").iterdir()) == []


def test_passwords_of_an_archive_are_not_shown(tmp_path: Path, programs: Path):
    apt_get(programs, "echo 'E: Failed to fetch http://user:secret@mirror.example.org/birds.deb  401' >&2; exit 100")
    with pytest.raises(EnvironmentFailure, match=r"//mirror\.example\.org/birds\.deb") as caught:
        package_file("birds", ABSENT, tmp_path / "cache")
    assert "secret" not in str(caught.value)


def test_the_reviewed_version_is_asked_for_first(tmp_path: Path, programs: Path):
    data = deb("birds", "1.0-1", {PICTURE: b"duck"})
    (tmp_path / "mirror").write_bytes(data)
    apt_get(programs, f'[ "$3" = birds=1.0-1 ] || exit 100; cp {tmp_path}/mirror birds_1.0-1_all.deb')
    reviewed = ABSENT.model_copy(update={"sha256": digest(data)})
    found = package_file("birds", reviewed, tmp_path / "cache")
    assert found.as_reviewed
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["birds_1.0-1_all.deb"]


def test_a_release_with_another_version_gives_that_one(tmp_path: Path, programs: Path):
    (tmp_path / "mirror").write_bytes(deb("birds", "2.0-1", {PICTURE: b"duck"}))
    apt_get(programs, f'[ "$3" = birds ] || exit 100; cp {tmp_path}/mirror birds_2.0-1_all.deb')
    found = package_file("birds", ABSENT, tmp_path / "cache")
    assert (found.version, found.as_reviewed) == ("2.0-1", False)
