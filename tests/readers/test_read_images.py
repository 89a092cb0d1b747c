"""The reader `images`: unlabelled banks as folders, tar, zip and parquet files, whole or drawn by a seed."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import image_sets
import numpy as np
import polars as pl
import pytest

from anchored.errors import InputError
from anchored.readers.images import read_images

FILES = {f"n{line // 4:02d}/{line:02d}.{'JPEG' if line % 2 else 'png'}": line for line in range(12)}
DATA = {name: image_sets.picture(line, "JPEG" if line % 2 else "PNG") for name, line in FILES.items()}


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        for info in (folder, link):
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def as_folder(path: Path) -> Path:
    for name, data in DATA.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    (path / "notes.txt").write_text("no image")
    (path / ".hidden.png").write_bytes(b"no image")
    return path


def as_tar(path: Path) -> Path:
    write_tar(path.with_suffix(".tar"), {**dict(reversed(DATA.items())), "a.json": b"{}"})
    return path.with_suffix(".tar")


def as_shards(path: Path) -> Path:
    """As webdataset has them: beside each image its label."""
    items = list(DATA.items())
    for shard in range(3):
        files = {name.replace("/", "_"): data for name, data in items[4 * shard : 4 * shard + 4]}
        write_tar(path / "shards" / f"train-{shard:04d}.tar", files | {f"{name[:-4]}.cls": b"3" for name in files})
    return path


def as_nested_tar(path: Path) -> Path:
    """As ImageNet is released: a tar file of a tar file a class."""
    inner = {}
    for number in range(3):
        write_tar(path.parent / "inner.tar", {name[4:]: data for name, data in DATA.items() if name.startswith(f"n{number:02d}")})
        inner[f"n{number:02d}.tar"] = (path.parent / "inner.tar").read_bytes()
    (path.parent / "inner.tar").unlink()
    write_tar(path.with_suffix(".tar"), inner)
    return path.with_suffix(".tar")


def as_zip(path: Path) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in reversed(DATA.items()):
            archive.writestr(name, data)
        archive.writestr("readme.txt", "no image")
    return path.with_suffix(".zip")


def as_parquet(path: Path) -> Path:
    path.mkdir()
    data = list(DATA.values())
    for part in range(3):
        cells = pl.Series([{"bytes": one, "path": None} for one in data[4 * part : 4 * part + 4]])
        pl.DataFrame({"image": cells, "label": [0, 1, 2, 3]}).write_parquet(path / f"train-{part}.parquet", row_group_size=2)
    return path


FORMS = [as_folder, as_tar, as_shards, as_nested_tar, as_zip, as_parquet]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_bank(tmp_path, packed, form: Callable[[Path], Path]) -> None:
    """The order is that of the names, not that of the archive."""
    store = packed(reader="images", folder=form(tmp_path / "bank").name, size=16)
    reds = store.packed[:, 8, 8, 0].astype(int)
    assert np.abs(reds - np.arange(0, 120, 10)).max() <= 2  # half of them are JPEG
    assert store.index.columns == ["row", "path", "sha256"]
    assert store.manifest["groups"] == {}
    assert not store.manifest["labelled"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_threads_read_what_one_reads(tmp_path, form: Callable[[Path], Path]) -> None:
    """Decoding asks from several threads at once."""
    images = read_images(image_sets.entry(reader="images", folder=form(tmp_path / "bank").name), tmp_path).images
    order = [5 * number % 12 for number in range(600)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(images.read, order)) == [list(DATA.values())[number] for number in order]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_bank_is_drawn_by_its_seed(tmp_path, form: Callable[[Path], Path]) -> None:
    """Ten thousand images of a million: the list follows from the seed alone, the same in every archive of the same names."""
    entry = image_sets.entry(reader="images", folder=form(tmp_path / "bank").name, limit=5)
    chosen = np.sort(np.random.default_rng([entry["seed"]]).choice(12, size=5, replace=False))
    images = read_images(entry, tmp_path).images
    assert [images.read(number) for number in range(5)] == [list(DATA.values())[number] for number in chosen]
    other = read_images({**entry, "seed": entry["seed"] + 1}, tmp_path).images
    assert list(other.names) != list(images.names)
    with pytest.raises(InputError, match="holds 12 images, 13 are needed"):
        read_images({**entry, "limit": 13}, tmp_path)


def test_nothing_to_read_is_named(tmp_path, refused) -> None:
    assert "nowhere is missing" in refused(reader="images", folder="nowhere").message
    (tmp_path / "empty").mkdir()
    assert "empty holds 0 images, 1 are needed" in refused(reader="images", folder="empty").message
    (tmp_path / "notes.txt").write_text("x")
    assert "is neither a folder nor a .zip, .tar or .parquet file" in refused(reader="images", folder="notes.txt").message


def test_archives_that_cannot_be_read_are_named(tmp_path, refused) -> None:
    tar = as_tar(tmp_path / "bank")
    whole = tar.read_bytes()
    tar.write_bytes(gzip.compress(whole))
    error = refused(reader="images", folder="bank.tar")
    assert "bank.tar is no readable uncompressed tar file" in error.message
    assert "without compression" in error.hint
    tar.write_bytes(whole)
    with tarfile.open(tar) as archive:
        fifth = archive.getmembers()[5].offset
    for cut in (fifth, fifth + 100, fifth + 530):  # between members, in a header, in an image
        tar.write_bytes(whole[:cut])
        assert "bank.tar is no readable uncompressed tar file" in refused(reader="images", folder="bank.tar").message
    (tmp_path / "bank.zip").write_bytes(whole)
    assert "bank.zip is no readable zip file" in refused(reader="images", folder="bank.zip").message
    (tmp_path / "bank.parquet").write_bytes(whole)
    assert "bank.parquet is no readable parquet file" in refused(reader="images", folder="bank.parquet").message


def test_an_encrypted_or_swollen_member_is_a_bad_image(tmp_path, refused) -> None:
    """A zip file may claim any length and any method: the reader neither trusts nor asks for a password."""
    path = as_zip(tmp_path / "bank")
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")
    data[first + 8] |= 1  # encrypted, says the directory
    second = data.index(b"PK\x01\x02", first + 1)
    data[second + 24 : second + 28] = (1 << 31).to_bytes(4, "little")  # unpacked length
    path.write_bytes(data)
    message = refused(reader="images", folder="bank.zip").message
    assert "bank.zip: 2 of 12 images are missing or cannot be read: n02/10.png, n02/11.JPEG." in message


def test_a_folder_that_is_a_link_is_refused(tmp_path, refused) -> None:
    """Left out without a word, half of the images would be missing."""
    folder = as_folder(tmp_path / "bank")
    (folder / "n02").rename(tmp_path / "elsewhere")
    (folder / "n02").symlink_to(tmp_path / "elsewhere")
    error = refused(reader="images", folder="bank")
    assert "bank: 1 folders are links, which are not followed: n02." in error.message
    (tmp_path / "all").symlink_to(folder)
    (folder / "n02").unlink()
    assert len(read_images(image_sets.entry(reader="images", folder="all"), tmp_path).images.names) == 8


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_a_bad_image(tmp_path, refused, method) -> None:
    """Every compression has an error of its own."""
    with zipfile.ZipFile(tmp_path / "bank.zip", "w", method) as archive:
        for name, data in DATA.items():
            archive.writestr(name, data)
    data = bytearray((tmp_path / "bank.zip").read_bytes())
    data[50:60] = b"\xff" * 10
    (tmp_path / "bank.zip").write_bytes(data)
    message = refused(reader="images", folder="bank.zip").message
    assert "bank.zip: 1 of 12 images are missing or cannot be read: n00/00.png." in message


def test_a_link_out_of_the_folder_is_refused(tmp_path, refused) -> None:
    folder = as_folder(tmp_path / "bank")
    (tmp_path / "outside.png").write_bytes(DATA["n00/00.png"])
    (folder / "n00" / "link.png").symlink_to(tmp_path / "outside.png")
    assert "bank: 1 images are links that leave the folder: n00/link.png." in refused(reader="images", folder="bank").message


def test_a_member_that_was_appended_again_counts_once(tmp_path) -> None:
    """`tar --append` leaves both; the last one is what unpacking would give."""
    tar = as_tar(tmp_path / "bank")
    with tarfile.open(tar, "a") as archive:
        info = tarfile.TarInfo("n00/00.png")
        info.size = len(DATA["n00/02.png"])
        archive.addfile(info, io.BytesIO(DATA["n00/02.png"]))
    images = read_images(image_sets.entry(reader="images", folder="bank.tar"), tmp_path).images
    assert len(images.names) == 12
    assert images.read(0) == DATA["n00/02.png"]


def test_images_beside_archives_are_ambiguous(tmp_path, refused) -> None:
    """An archive that lies beside what it unpacked to would be read in its place, and only part of it may be there."""
    folder = as_folder(tmp_path / "bank")
    write_tar(folder / "n00.tar", {"00.png": DATA["n00/00.png"]})
    error = refused(reader="images", folder="bank")
    assert "bank holds " in error.message
    assert "12 images" in error.message
    assert "1 .tar files" in error.message
