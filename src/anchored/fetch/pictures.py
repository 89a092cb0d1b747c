"""Pictures inside Debian packages: which ones, and that each is the one that was reviewed.

A table (CSV, one line a picture) names package, path, SHA-256, licence and credit. `path` is the file in the package; after an
exclamation mark follows the path inside a Qt resource archive:

    usr/share/gcompris-qt/rcc/erase.rcc!gcompris/src/activities/erase/resource/dolphin.webp

The digests of the pictures decide: a package that was built again with equal pictures is as good as the reviewed one.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import Field, TypeAdapter

from anchored.errors import InputError
from anchored.fetch.debian import Package, PackageFile, package_file, read_members
from anchored.fetch.qt_resources import BadArchive, ResourceArchive
from anchored.plan.base import Section


class Picture(Section):
    """A line of a table."""

    package: str
    """Name of the Debian package."""
    path: str
    """File in the package, and after an exclamation mark the file in a Qt resource archive."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the picture."""
    licence: str
    """As the package states it."""
    credit: str
    """Who made it, as far as the package says."""


P = TypeVar("P", bound=Picture)


@dataclass(frozen=True)
class Pictures:
    """Verified pictures by (package, path), the packages they came from, and the packages' copyright files by name."""

    content: dict[tuple[str, str], bytes]
    packages: list[PackageFile]
    copyright: dict[str, bytes]

    def of(self, picture: Picture) -> bytes:
        """The file of a picture."""
        return self.content[picture.package, picture.path]


def read_table(name: str, kind: type[P]) -> list[P]:
    """The lines of a table of this package."""
    lines = files("anchored.fetch").joinpath(name).read_text(encoding="utf-8").splitlines()
    return [kind.model_validate({key: value or None for key, value in row.items()}) for row in csv.DictReader(lines)]


@cache
def reviewed_packages() -> dict[str, Package]:
    """The packages of packages.yaml by name."""
    text = files("anchored.fetch").joinpath("packages.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Package]).validate_python(yaml.safe_load(text))


def read_pictures(wanted: Sequence[Picture], cache_folder: Path, *, packages: dict[str, Package] | None = None) -> Pictures:
    """Takes the wanted pictures out of their packages, which are downloaded into `cache_folder` where they are not there yet.

    Args:
        wanted: lines of a table.
        cache_folder: where .deb files are kept.
        packages: the reviewed packages; those of packages.yaml if left out.

    Raises:
        EnvironmentFailure: a package cannot be had or unpacked here.
        InputError: a picture is missing or differs; names the package, its version and digest and the first pictures.
    """
    reviewed = reviewed_packages() if packages is None else packages
    by_package: dict[str, list[Picture]] = defaultdict(list)
    for picture in wanted:
        by_package[picture.package].append(picture)
    found = Pictures({}, [], {})
    for name, pictures in sorted(by_package.items()):
        package = package_file(name, reviewed[name], cache_folder)
        notice = f"usr/share/doc/{name}/copyright"
        members = read_members(package.path, {picture.path.partition("!")[0] for picture in pictures} | {notice})
        if notice in members:
            found.copyright[name] = members[notice]
        found.packages.append(package)
        found.content.update(_verified(package, pictures, members))
    return found


def _verified(package: PackageFile, pictures: Sequence[Picture], members: dict[str, bytes]) -> dict[tuple[str, str], bytes]:
    archives: dict[str, ResourceArchive] = {}
    content: dict[tuple[str, str], bytes] = {}
    wrong: list[str] = []
    for picture in pictures:
        try:
            data = _take(picture.path, members, archives)
        except KeyError:
            wrong.append(f"{picture.path} is missing")
            continue
        except BadArchive as error:
            wrong.append(f"{picture.path} cannot be read ({error})")
            continue
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            wrong.append(f"{picture.path} differs")
            continue
        content[picture.package, picture.path] = data
    if wrong:
        raise InputError(
            f"{package.differs()}: of its {len(pictures)} pictures that are needed, {len(wrong)} are not as reviewed: "
            f"{'; '.join(wrong[:3])}{'; ...' if len(wrong) > 3 else ''}.",
            f"every picture is checked by its own digest, so another build of the package passes when its pictures are equal. "
            f"Get {package.name} {package.reviewed.version} (sha256 {package.reviewed.sha256}), from Debian 12 or Debian's "
            f"archive of all versions, place it in {package.path.parent} and remove {package.path.name} there.",
        )
    return content


def _take(path: str, members: dict[str, bytes], archives: dict[str, ResourceArchive]) -> bytes:
    file, _, inner = path.partition("!")
    if not inner:
        return members[file]
    if file not in archives:
        archives[file] = ResourceArchive(members[file])
    return archives[file].read(inner)
