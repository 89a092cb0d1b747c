"""Reads files out of a Qt resource archive (.rcc), the form in which GCompris ships its pictures.

    header   "qres", version, offset of tree, of data, of names (big-endian u32); version 3 adds flags
    tree     entries of 14 bytes (version 1) or 22 (2 and 3, with a time stamp):
             name u32, flags u16, then for a folder: count u32, first child u32; for a file: country u16, language u16, data u32
    name     length u16, hash u32, UTF-16-BE
    data     length u32, bytes; with flag 1 (zlib) the bytes are the unpacked length u32 and a zlib stream

Layout after Qt's own reader, qtbase/src/corelib/io/qresource.cpp. Every offset is checked against the archive's length, a
folder is walked once, and a stream is unpacked no further than the length it announces.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_ZLIB, _FOLDER, _ZSTD = 1, 2, 4


class BadArchive(ValueError):
    """The bytes are no Qt resource archive, or one that contradicts itself; the text says where."""


@dataclass(frozen=True)
class Resource:
    """A file of the archive: its path without a leading slash, and where its data lie."""

    path: str
    flags: int
    offset: int


class ResourceArchive:
    """The files of one .rcc archive held in memory.

    Raises:
        BadArchive: wrong magic number, unknown version, an offset outside the archive, a folder met twice.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        magic, version, self._tree, self._bodies, self._names = self._unpack(">4s4I", 0, "header")
        if magic != b"qres" or version not in (1, 2, 3):
            raise BadArchive(f"no Qt resource archive of version 1 to 3 (starts with {magic!r}, version {version})")
        self._entry = 14 if version == 1 else 22
        self.files = {resource.path: resource for resource in self._walk()}

    def read(self, path: str, *, limit: int = 64 << 20) -> bytes:
        """The content of a file, at most `limit` bytes.

        Raises:
            KeyError: no such file.
            BadArchive: the data run over the end, use an unknown compression, or unpack to more than `limit` bytes or to
                another length than announced.
        """
        resource = self.files[path]
        start = self._bodies + resource.offset
        (length,) = self._unpack(">I", start, path)
        body = self._data[start + 4 : start + 4 + length]
        if len(body) != length:
            raise BadArchive(f"{path}: its data run over the end of the archive")
        if resource.flags & _ZSTD:
            raise BadArchive(f"{path}: compressed by zstd, which this reader does not know")
        if not resource.flags & _ZLIB:
            return body
        if length < 4 or (expected := struct.unpack_from(">I", body)[0]) > limit:
            raise BadArchive(f"{path}: announces no size, or one over {limit} bytes")
        stream = zlib.decompressobj()
        try:
            content = stream.decompress(body[4:], expected + 1)
        except zlib.error as error:
            raise BadArchive(f"{path}: {error}") from error
        if len(content) != expected or not stream.eof:
            raise BadArchive(f"{path}: does not unpack to the {expected} bytes it announces")
        return content

    def _walk(self) -> Iterator[Resource]:
        room = (len(self._data) - self._tree) // self._entry
        seen: set[int] = set()
        waiting = [(0, "")]
        while waiting:
            number, parent = waiting.pop()
            if number >= room or number in seen:
                raise BadArchive(f"entry {number} under {parent or '/'} is outside the tree or met twice")
            seen.add(number)
            start = self._tree + number * self._entry
            name, flags, first, second = self._unpack(">IHII", start, "tree")
            path = f"{parent}/{self._name(name)}" if number else ""
            if flags & _FOLDER:
                if first > room:
                    raise BadArchive(f"{path or '/'} announces {first} entries, the archive has room for {room}")
                waiting.extend((second + child, path) for child in reversed(range(first)))
            else:
                yield Resource(path.lstrip("/"), flags, second)

    def _name(self, offset: int) -> str:
        start = self._names + offset
        (length,) = self._unpack(">H", start, "names")
        raw = self._data[start + 6 : start + 6 + 2 * length]
        name = raw.decode("utf-16-be", errors="replace")
        if len(raw) != 2 * length or not name or "/" in name or name in (".", ".."):
            raise BadArchive(f"name at {start} is no file name")
        return name

    def _unpack(self, form: str, start: int, where: str) -> tuple:
        try:
            return struct.unpack_from(form, self._data, start)
        except struct.error as error:
            raise BadArchive(f"{where}: offset {start} is outside the archive of {len(self._data)} bytes") from error
