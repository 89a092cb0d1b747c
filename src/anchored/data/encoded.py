"""Images as files hold them: readers say which bytes belong to which row, decoding is somebody else's (decode.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Encoded(Protocol):
    """N encoded images that can be read in any order and by several threads at once."""

    @property
    def where(self) -> Path:
        """The folder or archive, for messages."""

    @property
    def names(self) -> Sequence[str]:
        """(N,) what each is called inside of `where`."""

    def read(self, number: int) -> bytes:
        """The bytes of one image.

        Raises:
            OSError: it is missing or cannot be read.
        """


@dataclass(frozen=True)
class FolderImages:
    """Image files of a folder.

    Args:
        where: the folder.
        names: paths inside of it.
    """

    where: Path
    names: Sequence[str]

    def read(self, number: int) -> bytes:
        """The bytes of one file."""
        return (self.where / self.names[number]).read_bytes()
