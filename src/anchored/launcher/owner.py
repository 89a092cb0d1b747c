"""Who runs Snakemake in a folder, and whether its lock outlived it.

Snakemake's lock is a file that names nobody, and stays when its owner is killed. Whether it is stale can be known in two cases:
`anchored run` noted who it started, on this machine; or the folder is on a disk of this machine, whose processes can all be seen.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from anchored.errors import EnvironmentFailure
from anchored.files import write_json
from anchored.locks import exclusive
from anchored.paths import Paths
from anchored.processes import running

MOUNTS = Path("/proc/self/mounts")
_SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "9p", "fuse", "afs", "panfs", "wekafs", "gluster", "orangefs")


@dataclass(frozen=True)
class Note:
    """The last Snakemake that `anchored run` started here: machine, process, and whether it was seen to end."""

    host: str
    process: int
    ended: bool


class Owner:
    """The one `anchored run` of a folder."""

    def __init__(self, paths: Paths) -> None:
        self._root = paths.root
        self._file = paths.work("run.json")

    @property
    def note(self) -> Note | None:
        """What the last run left behind; None where there was none."""
        try:
            return Note(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def started(self, process: int) -> None:
        """Notes which Snakemake runs from now on."""
        write_json(self._file, vars(Note(socket.gethostname(), process, ended=False)))

    def ended(self) -> None:
        """Notes that it ended. On a full disk it does not, which costs the next run a look at what may be left."""
        if note := self.note:
            with suppress(EnvironmentFailure):
                write_json(self._file, vars(Note(note.host, note.process, ended=True)))

    def require_alone(self) -> None:
        """Refuses to go on beside another Snakemake.

        Raises:
            EnvironmentFailure: a Snakemake runs here; says which process.
        """
        if found := running("snakemake", self._root):
            raise EnvironmentFailure(
                f"Snakemake is running in {self._root.resolve()}: process {found[0]} on {socket.gethostname()}.",
                "wait for it, or stop it with Ctrl-C where it runs; nothing was changed.",
            )

    @property
    def locked(self) -> bool:
        """Whether Snakemake's lock is there."""
        return any((self._root / ".snakemake" / "locks").glob("*.lock"))

    def require_stale(self) -> None:
        """Refuses to take away a lock whose owner may live.

        Raises:
            EnvironmentFailure: a Snakemake runs here, or may run on another machine.
        """
        self.require_alone()
        note, shared = self.note, _on_shared_disk(self._root)
        noted_here = note is not None and not note.ended and note.host == socket.gethostname()
        if noted_here or not shared:
            return
        where = f"process {note.process} on {note.host}" if note and not note.ended else "on another machine"
        raise EnvironmentFailure(
            f"{self._root.resolve()} is locked by a Snakemake that may still run ({where}).",
            "stop it there; if no machine runs one, type `snakemake --unlock` and the same command again.",
        )


@contextmanager
def owned(paths: Paths) -> Iterator[Owner]:
    """Holds the folder for one `anchored run`.

    Raises:
        EnvironmentFailure: another one holds it.
    """
    with exclusive("anchored run", paths):
        yield Owner(paths)


def _on_shared_disk(folder: Path) -> bool:
    """Whether other machines may see the folder; where that cannot be known, they may."""
    try:
        rows = [line.split()[1:3] for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return True
    here = folder.resolve()
    above = [(len(point), kind) for point, kind in rows if here.is_relative_to(point.replace("\\040", " "))]
    return max(above)[1].startswith(_SHARED) if above else True
