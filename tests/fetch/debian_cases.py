"""Debian packages, Qt resource archives and pictures made by hand, so that tests need no network and no pictures of others."""

import hashlib
import io
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from anchored.fetch.debian import Package

Member = bytes | tarfile.TarInfo


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar(members: Mapping[str, Member]) -> bytes:
    """A tar archive of files (bytes) and whatever else (a TarInfo without content)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, member in members.items():
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(member, bytes):
                info.size = len(member)
            archive.addfile(info, io.BytesIO(member) if isinstance(member, bytes) else None)
    return stream.getvalue()


def deb(name: str, version: str, members: Mapping[str, Member], *, padding: int = 0) -> bytes:
    """A Debian package: an ar archive of a format number, a control archive and a data archive."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar": tar({"./control": control.encode()}),
        "data.tar": tar({f"./{path}": member for path, member in members.items()}) + bytes(padding),
    }
    archive = b"!<arch>\n"
    for part, data in parts.items():
        archive += f"{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return archive


def place(cache: Path, name: str, version: str, members: Mapping[str, Member]) -> Package:
    """Puts a package into a cache under the name apt-get gives it; returns what a review of it would write down."""
    cache.mkdir(parents=True, exist_ok=True)
    data = deb(name, version, members)
    (cache / f"{name}_{version.replace(':', '%3a')}_all.deb").write_bytes(data)
    return Package(version=version, sha256=digest(data), bytes=len(data), licence="GPL-2+")


def rcc(files: Mapping[str, bytes], *, version: int = 3, packed: bool = True) -> bytes:
    """A Qt resource archive: the tree is laid out breadth first, as Qt's compiler does."""
    folders: dict[str, list[str]] = {"": []}
    for path in files:
        parts = path.split("/")
        for depth in range(len(parts)):
            parent, child = "/".join(parts[:depth]), "/".join(parts[: depth + 1])
            if child not in folders.setdefault(parent, []):
                folders[parent].append(child)
    order = [""]
    for path in order:
        order.extend(folders.get(path, []) if path not in files else [])
    names, name_at, bodies, body_at = b"", {}, b"", {}
    for path in order:
        name_at[path] = len(names)
        last = path.rsplit("/", 1)[-1]
        names += struct.pack(">HI", len(last), 0) + last.encode("utf-16-be")
        if path in files:
            body = struct.pack(">I", len(files[path])) + zlib.compress(files[path]) if packed else files[path]
            body_at[path] = len(bodies)
            bodies += struct.pack(">I", len(body)) + body
    tree = b""
    for path in order:
        if path in files:
            tree += struct.pack(">IHHHI", name_at[path], 1 if packed else 0, 0, 0, body_at[path])
        else:
            tree += struct.pack(">IHII", name_at[path], 2, len(folders[path]), order.index(folders[path][0]))
        tree += b"" if version == 1 else struct.pack(">Q", 0)
    start = 24 if version == 3 else 20
    header = struct.pack(">4s4I", b"qres", version, start + len(bodies) + len(names), start, start + len(bodies))
    return header + (struct.pack(">I", 0) if version == 3 else b"") + bodies + names + tree


def photograph(seed: int, size: tuple[int, int] = (60, 40)) -> bytes:
    """A PNG of smooth colours, another one for every seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return png(small.resize(size, Image.Resampling.BICUBIC))


def cut_out(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """A PNG of one colour inside an opaque rectangle, transparent around it."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((size[1], size[0], 4), dtype=np.uint8)
    pixels[5:-5, 8:-8] = [*rng.integers(0, 256, 3), 255]
    return png(Image.fromarray(pixels, "RGBA"))


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
