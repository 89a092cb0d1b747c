"""Where DVC pushes to in a test."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from checkout import Checkout


@dataclass(frozen=True)
class Remote:
    """A place where DVC keeps copies.

    Args:
        folder: on this machine.
        url: as DVC is told.
        key: that opens the SSH server; None for a folder.
    """

    folder: Path
    url: str
    key: Path | None = None

    def commands(self) -> list[str]:
        """What the owner of a study types; docs/dvc.md shows the same."""
        add = f"dvc remote add --default storage {self.url}"
        return [add, *self.unlocking(), "dvc remote modify storage verify true"] if self.key else [add]

    def unlocking(self) -> list[str]:
        """What everybody else types before pulling."""
        return [f"dvc remote modify --local storage keyfile {self.key}"] if self.key else []

    def objects(self) -> list[Path]:
        """Whole files that lie there."""
        return [path for path in self.folder.rglob("*") if path.is_file() and not path.name.endswith(".tmp")]

    def stored(self, checkout: Checkout, output: str) -> Path:
        """Where an output lies."""
        stages = yaml.safe_load((checkout.path / "dvc.lock").read_text())["stages"].values()
        (digest,) = {out["md5"] for stage in stages for out in stage["outs"] if out["path"] == output}
        return self.folder / "files" / "md5" / digest[:2] / digest[2:]


def publish(checkout: Checkout, remote: Remote) -> None:
    """Commits the results of a finished study and pushes them."""
    for command in remote.commands():
        checkout.run(*command.split())
    checkout.commit("Results")
    checkout.run("dvc", "push")


def clone_of(checkout: Checkout, remote: Remote, path: Path) -> Checkout:
    """A fresh clone that may pull."""
    clone = checkout.clone(path)
    for command in remote.unlocking():
        clone.run(*command.split())
    return clone


def contents(checkout: Checkout) -> dict[str, bytes]:
    """Every file of results/, records too."""
    folder = checkout.path / "results"
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
