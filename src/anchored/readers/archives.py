"""Images inside of zip and tar files, read in place: nothing is unpacked, so no name in an archive can lead anywhere."""

import lzma
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from anchored.errors import InputError
from anchored.locate import is_image
from anchored.readers.encoded import LARGEST


class Place(NamedTuple):
    """Bytes of a file: `size` of them from `start`."""

    file: Path
    start: int
    size: int


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip file.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing.", "place the file there, or correct `folder` in the configuration.") from error
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise InputError(f"{path} is no readable zip file: {error}.", "download it again; it may have been cut short.") from error


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, whose checksum is verified.

    Raises:
        OSError: it is damaged, encrypted, compressed in an unknown way, or longer than any image or list.
    """
    if member.file_size > LARGEST:
        raise OSError(f"{member.filename} claims {member.file_size} bytes")
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise OSError(f"{member.filename}: {error}") from error


class ZipImages:
    """Members of a zip file.

    Args:
        archive: the open file.
        names: what the images are called.
        members: the member of each name; a name without one is missing.
    """

    def __init__(self, archive: zipfile.ZipFile, names: Sequence[str], members: Mapping[str, zipfile.ZipInfo]) -> None:
        self.where = Path(str(archive.filename))
        self.names = names
        self._archive, self._members = archive, members
        # ZipFile counts its readers without a lock of its own. Inflating is a small part of decoding an image.
        self._lock = threading.Lock()

    def read(self, number: int) -> bytes:
        """The bytes of one member."""
        if self.names[number] not in self._members:
            raise FileNotFoundError(self.names[number])
        with self._lock:
            return read_member(self._archive, self._members[self.names[number]])


class TarImages:
    """Members of uncompressed tar files, found by their offsets.

    Args:
        where: the file, or the folder of files.
        names: what the images are called.
        places: (N,) where they lie.
    """

    def __init__(self, where: Path, names: Sequence[str], places: Sequence[Place]) -> None:
        self.where, self.names, self._places = where, names, places

    def read(self, number: int) -> bytes:
        """The bytes of one member."""
        file, start, size = self._places[number]
        if size > LARGEST:
            raise OSError(f"{self.names[number]} claims {size} bytes")
        with file.open("rb") as stream:  # each reader its own: the position of a shared one belongs to all threads
            stream.seek(start)
            data = stream.read(size)
        if len(data) < size:
            raise OSError(f"{self.names[number]}: the file ends before the image does")
        return data


def zip_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members of a zip file that are images."""
    return [member for member in archive.infolist() if not member.is_dir() and is_image(member.filename)]


def tar_members(path: Path) -> Iterator[tuple[str, Place]]:
    """Name and place of every image in a tar file, also of those in tar files inside of it (as ImageNet is released).

    Raises:
        InputError: the file is compressed, damaged or cut short.
    """
    try:
        with path.open("rb") as stream:
            yield from _members(path, stream, 0, "")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "check the file.") from error
    except tarfile.TarError as error:
        raise InputError(
            f"{path} is no readable uncompressed tar file: {error}.",
            "compressed ones have no random access: unpack it, or write it again without compression; a file that was cut short "
            "has to be downloaded again.",
        ) from error


def _members(path: Path, stream: IO[bytes], start: int, prefix: str) -> Iterator[tuple[str, Place]]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            if not member.isreg() or member.issparse():
                continue
            name = prefix + member.name
            if name.endswith(".tar"):
                inner = archive.extractfile(member)
                assert inner is not None  # regular files have one
                yield from _members(path, inner, start + member.offset_data, f"{name}/")
            elif is_image(name):
                yield name, Place(path, start + member.offset_data, member.size)
        stream.seek(archive.offset)
        if len(stream.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:  # tarfile takes a file cut between two members for whole
            raise tarfile.ReadError("it has no end")
