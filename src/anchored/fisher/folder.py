"""A published FIM as a folder: its checksums, in the format of coreutils.

SHA256SUMS has one line a file, `<sha-256 in hexadecimal>  <file>`, sorted by name: `sha256sum -c SHA256SUMS` checks them.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from anchored.errors import InputError
from anchored.files import file_digest

FIM = "fim.safetensors"
BACKBONE = "backbone.safetensors"
METADATA = "metadata.json"
CARD = "README.md"
SUMS = "SHA256SUMS"

_AGAIN = "fetch the folder again; a file of your own belongs elsewhere."


def checksums(folder: Path, names: Iterable[str]) -> str:
    """The text of SHA256SUMS for the files `names` of `folder`."""
    return "".join(f"{file_digest(folder / name)}  {name}\n" for name in sorted(names))


def read_checksums(folder: Path) -> dict[str, str]:
    """File names of a release to their digests.

    Raises:
        InputError: the folder has no SHA256SUMS, or one that is not in the format.
    """
    path = folder / SUMS
    if not path.is_file():
        raise InputError(f"{folder} is a folder without {SUMS}, so no published FIM.", "give a file, or a folder of fim-release.")
    found = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *]([^/\\]+)", line)
        if not match:
            raise InputError(f"{path}: line {number} is no checksum.", _AGAIN)
        found[match[2]] = match[1]
    return found


def check_release(folder: Path) -> Path:
    """Compares every file of the release with its checksum; returns the path of the Fisher.

    Raises:
        InputError: a file is missing or differs; names it.
    """
    sums = read_checksums(folder)
    for name in (FIM, METADATA):
        if name not in sums:
            raise InputError(f"{folder / SUMS} does not list {name}.", _AGAIN)
    for name, digest in sums.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing.", _AGAIN)
        if file_digest(folder / name) != digest:
            raise InputError(f"{folder / name} differs from its checksum in {SUMS}: it was changed or damaged.", _AGAIN)
    return folder / FIM
