"""Digests written as `algorithm:hex`, whole or, where a publisher gives no more, the first digits."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from anchored.progress import Advance, progress

LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
PATTERN = r"^(md5|sha1|sha256|sha512):[0-9a-f]{6,128}$"
MIB = 1 << 20
_WORTH_A_BAR = 256 * MIB
# torch.hub's convention: the first digits of the SHA-256 stand in the name of the file.
_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|bin|safetensors)$")


class Digest(NamedTuple):
    """A known digest of a file."""

    algorithm: str
    digits: str

    @property
    def whole(self) -> bool:
        """All digits are known; a few digits tell an accident, not an attack."""
        return len(self.digits) == LENGTHS[self.algorithm]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digits}" + ("" if self.whole else "...")


def parse(text: str) -> Digest:
    """`text` of the form of PATTERN."""
    return Digest(*text.split(":", 1))


def in_name(name: str) -> Digest | None:
    """The digits of a SHA-256 that a file's name promises, as in `model-abcdef12.pth`."""
    found = _IN_NAME.search(name)
    return Digest("sha256", found[1]) if found else None


def measure(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    """Digests of a file in one pass, by algorithm, in hexadecimal; with progress where it takes a while."""
    hashers = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *algorithms}}
    size = path.stat().st_size
    if size < _WORTH_A_BAR:
        return _measure(path, hashers, _no_bar)
    with progress(f"check {path.name}, MiB", size // MIB) as advance:
        return _measure(path, hashers, advance)


def mismatch(found: dict[str, str], known: Digest) -> str | None:
    """A sentence where the digests of a file are not the known one."""
    got = found[known.algorithm]
    if got.startswith(known.digits):
        return None
    return f"its {known.algorithm} is {got}, not {known.digits}{'' if known.whole else '...'}"


def _no_bar(steps: int = 1, note: str = "") -> None:
    pass


def _measure(path: Path, hashers: dict[str, Any], advance: Advance) -> dict[str, str]:
    with path.open("rb") as stream:
        while block := stream.read(MIB):
            for hasher in hashers.values():
                hasher.update(block)
            advance()
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}
