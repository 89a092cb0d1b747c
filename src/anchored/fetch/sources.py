"""The table of sources, `sources.yaml`, as typed models: what there is, where it comes from, what proves that it is right.

An address or a digest stands in the table only with `seen`, the place where it was read. A file without a digest is trusted on
first use: what came then must come again (`pins`).
"""

import datetime
import difflib
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, model_validator

from anchored.errors import ConfigError
from anchored.fetch.digests import LENGTHS, PATTERN, Digest, in_name, parse
from anchored.plan.base import Count, Identifier, Section


def _below(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or any(part in ("..", ".") or part.startswith(".") for part in parts) or "\\" in path:
        raise ValueError(f"'{path}' must be a path below the target folder, without hidden parts")
    return path


def _digest(text: str) -> str:
    algorithm, digits = text.split(":")
    if len(digits) > LENGTHS[algorithm]:
        raise ValueError(f"a {algorithm} has {LENGTHS[algorithm]} digits, not {len(digits)}")
    return text


Below = Annotated[str, AfterValidator(_below)]
KnownDigest = Annotated[str, Field(pattern=PATTERN), AfterValidator(_digest)]
Address = Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]


class Licence(Section):
    """Under which terms a source may be used."""

    name: str
    """SPDX identifier, or the publisher's own words."""
    url: Address | None = None
    """Where the terms are written."""

    def __str__(self) -> str:
        return f"{self.name} ({self.url})" if self.url else self.name


class RemoteFile(Section):
    """A file that is downloaded."""

    name: Below
    """Its name, where it is kept."""
    url: Address
    """The publisher's address."""
    archive: tuple[Address, ...] = ()
    """Other addresses of the same bytes, asked in this order when the publisher fails."""
    digest: KnownDigest | None = None
    """What the file must have; None: trusted on first use."""
    size: Count | None = None
    """Bytes that it must have."""
    at_most: Count = 4 << 30
    """Bytes after which a transfer is cut off, where the size is not known."""
    seen: str
    """Where address, digest and size were read."""

    @property
    def digests(self) -> list[Digest]:
        """All that is known: of the table, and of the file's name."""
        return [digest for digest in (parse(self.digest) if self.digest else None, in_name(self.name)) if digest]


class Unpack(Section):
    """How an archive becomes a folder."""

    format: Literal["tar", "tar.gz", "zip"]
    """What the archive is."""
    root: Below | None = None
    """Folder inside the archive that becomes the target; None: all of it."""
    at_most: Count
    """Bytes of the unpacked files after which the archive is refused."""
    members: Count
    """Files and folders after which the archive is refused."""


class Hub(Section):
    """Files of a repository of the Hugging Face hub."""

    repo: str
    """Its name, owner/name."""
    type: Literal["model", "dataset"]
    """What it holds."""
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    """The commit; None: the newest at first use, and the same from then on."""
    files: tuple[str, ...]
    """Names or shell patterns of the files that are wanted."""
    digests: dict[str, KnownDigest] = Field(default_factory=dict)
    """Name of a file -> what it must have."""
    at_most: Count = 20 << 30
    """Bytes of all files after which they are refused."""
    seen: str
    """Where repository, commit, names and digests were read."""


class Option(Section):
    """One form in which something may be placed: a file or a folder."""

    file: Below | None = None
    """Its name."""
    folder: Below | None = None
    """Its name."""
    digest: KnownDigest | None = None
    """What the file must have."""
    entries: Count | None = None
    """Number of entries that the folder must have."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.folder is None):
            raise ValueError("give either a file or a folder")
        return self

    @property
    def name(self) -> str:
        """The name of the file or folder."""
        return self.file or self.folder or ""


class Placed(Section):
    """Something that a person places, in one of several forms."""

    what: str
    """What it is, for messages."""
    any: Annotated[tuple[Option, ...], Field(min_length=1)]
    """The forms; the first that is there counts."""


class ByHand(Section):
    """What a person has to do, because a licence asks for a click or the publisher for an account."""

    text: str
    """What to do, and where."""
    files: Annotated[tuple[Placed, ...], Field(min_length=1)]
    """What must lie in the target folder afterwards."""
    seen: str
    """Where names and digests were read."""


class Source(Section):
    """A dataset or a file of weights."""

    name: Identifier
    """What users type."""
    title: str
    """What it is, in a line: the name that provenance and tables show."""
    version: str
    """The publisher's version, or the year."""
    kind: Literal["dataset", "weights"]
    """A dataset is a folder below data/, weights are a file below weights/."""
    target: Below
    """Name of that folder or file."""
    licences: Annotated[tuple[Licence, ...], Field(min_length=1)]
    """Terms of use; all of them hold."""
    files: tuple[RemoteFile, ...] = ()
    """Download these, or"""
    hub: Hub | None = None
    """take these from the hub, or"""
    by_hand: ByHand | None = None
    """let a person place these, or"""
    builder: str | None = None
    """build it here (a name of `builders`)."""
    unpack: Unpack | None = None
    """The one downloaded file is an archive."""
    about: Count | None = None
    """Bytes of the download as a listing rounds them, where no exact size is known."""
    reads: str
    """The configuration entry that reads it."""
    citation: str
    """What to cite."""
    note: str = ""
    """What a reader of a table must know."""
    verified: datetime.date | None = None
    """Day on which a person last ran the download; None: never."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ways = [bool(self.files), self.hub is not None, self.by_hand is not None, self.builder is not None]
        if sum(ways) != 1:
            raise ValueError("give exactly one of files, hub, by_hand and builder")
        if self.unpack and (len(self.files) != 1 or self.kind != "dataset"):
            raise ValueError("unpack needs exactly one file, and makes a dataset")
        if self.kind == "weights" and (len(self.files) > 1 or (self.hub and len(self.hub.files) > 1) or self.by_hand):
            raise ValueError("weights are one file, downloaded or built")
        return self

    @property
    def size(self) -> int | None:
        """Bytes of the download, None where nobody says."""
        known = [file.size for file in self.files]
        return sum(size for size in known if size) if known and all(known) else self.about

    @property
    def pinned(self) -> bool | None:
        """Whether the table holds a whole digest of every file; None where it holds no file."""
        if self.builder:
            return None
        if self.by_hand:
            return all(option.digest for placed in self.by_hand.files for option in placed.any[:1])
        if self.hub:
            return bool(self.hub.digests) and set(self.hub.files) <= set(self.hub.digests)
        return all(any(digest.whole for digest in file.digests) for file in self.files)

    @property
    def licence_lines(self) -> list[str]:
        """The licences as text."""
        return [str(licence) for licence in self.licences]


@cache
def load_sources() -> dict[str, Source]:
    """The table, by name, in its order."""
    text = files("anchored.fetch").joinpath("sources.yaml").read_text(encoding="utf-8")
    return parse_sources(yaml.safe_load(text))


def parse_sources(table: dict[str, Any]) -> dict[str, Source]:
    """The sources of a table; names of targets differ, so that no source overwrites another."""
    sources = {name: Source.model_validate({"name": name, **entry}) for name, entry in table.items()}
    seen: dict[tuple[str, str], str] = {}
    for source in sources.values():
        other = seen.setdefault((source.kind, source.target), source.name)
        if other != source.name:
            raise ValueError(f"{source.name} and {other} have the same target {source.target}")
    return sources


def find_source(name: str) -> Source:
    """The source of this name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    sources = load_sources()
    if name in sources:
        return sources[name]
    near = difflib.get_close_matches(name, sources, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise ConfigError(f"'{name}' is no source.", f"{hint}`anchored fetch --list` shows all of them.")
