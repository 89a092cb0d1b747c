"""Entries of the table, digests and archives for the tests."""

import hashlib
import io
import tarfile
from typing import Any


def entry(name: str, **values: Any) -> dict[str, Any]:
    """An entry of the table with plain values for what is left out."""
    plain = {"title": name, "version": "1", "kind": "dataset", "target": name, "licences": [{"name": "CC0-1.0"}],
             "reads": f"{name}: {{reader: folder}}", "citation": "none"}  # fmt: skip
    return plain | values


def sha256(data: bytes) -> str:
    """SHA-256 with its name in front, as the table writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_gz(files: dict[str, bytes]) -> bytes:
    """An archive of these files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()
