"""Reads single files out of Debian packages: downloaded by apt-get, unpacked in memory, nothing is installed.

    apt-get download NAME=VERSION          needs package lists, no privileges
    dpkg-deb --fsys-tarfile FILE           a tar stream, read here member by member

Only regular files that were asked for by name are read, and only into memory: a package has no say in where anything lands.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from anchored.errors import EnvironmentFailure, InputError
from anchored.fetch.redact import redacted_text
from anchored.files import disk_failure, file_digest
from anchored.plan.base import Section

_LIMIT = 64 << 20


class Package(Section):
    """A package as it was reviewed."""

    version: str
    """Debian's version."""
    sha256: str
    """Of the .deb file."""
    bytes: int
    """Size of the .deb file."""
    licence: str
    """What its copyright file says, in a line."""


@dataclass(frozen=True)
class PackageFile:
    """A .deb file at hand: where it lies, what it says of itself, and whether it is the reviewed one."""

    name: str
    path: Path
    version: str
    sha256: str
    reviewed: Package

    @property
    def as_reviewed(self) -> bool:
        """Whether it is the reviewed file, to the byte."""
        return self.sha256 == self.reviewed.sha256

    def differs(self) -> str:
        """One clause on how the file relates to the reviewed one."""
        if self.as_reviewed:
            return f"{self.name} {self.version} is the reviewed package"
        return (
            f"{self.name} {self.version} (sha256 {self.sha256[:16]}) is not the reviewed package, "
            f"{self.reviewed.version} (sha256 {self.reviewed.sha256[:16]})"
        )


def package_file(name: str, reviewed: Package, cache: Path) -> PackageFile:
    """The package's .deb: from `cache` if it is there, else downloaded into it by apt-get.

    The reviewed version is asked for first. Where the configured release has another one, that one is taken: the caller
    checks every file it reads by its own digest, so a rebuilt package with equal pictures is as good.

    Raises:
        EnvironmentFailure: apt-get or dpkg-deb is missing, the package lists are empty, or the download failed.
        InputError: a file of that name in `cache` is no Debian package.
    """
    cache.mkdir(parents=True, exist_ok=True)
    at_hand = [_inspect(name, path, reviewed) for path in sorted(cache.glob(f"{name}_*.deb"))]
    if at_hand:
        return max(at_hand, key=lambda file: file.as_reviewed)
    return _inspect(name, _download(name, reviewed, cache), reviewed)


def read_members(package: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """The wanted regular files of a package by path (`usr/share/...`); files it lacks are absent from the result.

    Raises:
        EnvironmentFailure: dpkg-deb is missing.
        InputError: the package is damaged, or a wanted member is a link, a device, or over 64 MiB.
    """
    command = [_program("dpkg-deb", package.parent), "--fsys-tarfile", str(package)]
    found: dict[str, bytes] = {}
    failure: Exception | None = None
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, env=_plain_environment()) as process:
            assert process.stdout is not None
            try:
                _collect(package, process.stdout, set(wanted), found)
            except (tarfile.TarError, EOFError, OSError) as error:
                failure = error
        if len(found) < len(set(wanted)) and (failure or process.returncode):
            raise _damaged(package, complaints, failure) from failure
    return found


def _collect(package: Path, stream: IO[bytes], wanted: set[str], found: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            if path in wanted:
                found[path] = _content(package, archive, member)
            if len(found) == len(wanted):
                return  # what follows may be a hundred megabytes; dpkg-deb ends when its pipe is closed
    stream.read()  # padding: dpkg-deb would complain of a pipe closed too early


def _content(package: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isreg():
        raise InputError(f"{package}: {member.name} is a link or a device, not a file.", "take the package from a Debian archive.")
    if member.size > _LIMIT:
        raise InputError(f"{package}: {member.name} has {member.size} bytes, over the {_LIMIT} that are read.")
    stream = archive.extractfile(member)
    assert stream is not None  # a regular file has a body
    return stream.read()


def _download(name: str, reviewed: Package, cache: Path) -> Path:
    apt = _program("apt-get", cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}.") as folder:
        for wanted in (f"{name}={reviewed.version}", name):
            run = _run(apt, "-qq", "download", wanted, folder=folder)
            files = list(Path(folder).glob(f"{name}_*.deb"))
            if run.returncode == 0 and len(files) == 1:
                target = cache / files[0].name
                try:
                    os.replace(files[0], target)
                except OSError as error:
                    raise disk_failure(target, error) from error
                return target
    raise EnvironmentFailure(f"apt-get cannot download {name}: {_last_words(run.stderr)}", _advice(name, reviewed, cache))


def _inspect(name: str, path: Path, reviewed: Package) -> PackageFile:
    digest = file_digest(path)
    if digest == reviewed.sha256:
        return PackageFile(name, path, reviewed.version, digest, reviewed)
    run = _run(_program("dpkg-deb", path.parent), "--field", str(path), "Package", "Version")
    fields = dict(line.split(": ", 1) for line in run.stdout.splitlines() if ": " in line)
    if run.returncode or fields.get("Package") != name:
        said = _last_words(run.stderr) if run.returncode else f"it is the package {fields.get('Package', 'without a name')}"
        raise InputError(f"{path} is not the Debian package {name}: {said}", "remove the file and run the same command again.")
    return PackageFile(name, path, fields.get("Version", "unknown"), digest, reviewed)


def _run(*command: str, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", env=_plain_environment())


def _program(name: str, cache: Path) -> str:
    found = shutil.which(name)
    if found is None:
        raise EnvironmentFailure(
            f"{name} is not installed: this source is built from Debian packages.",
            f"run the command on Debian or Ubuntu (a container will do), or bring the built folder from there; "
            f"`dpkg-deb` alone (package dpkg) is enough when the .deb files are already in {cache}.",
        )
    return found


def _advice(name: str, reviewed: Package, cache: Path) -> str:
    return (
        "run `apt-get update` if the package lists are empty or old. A release without this package: get "
        f"{name} {reviewed.version} from Debian's archive of all versions (snapshot.debian.org; sha256 {reviewed.sha256}) "
        f"and place the .deb file in {cache}."
    )


def _damaged(package: Path, complaints: IO[bytes], error: Exception | None) -> InputError:
    complaints.seek(0)
    said = _last_words(complaints.read().decode(errors="replace")) or str(error)
    return InputError(f"{package} cannot be unpacked: {said}", "remove the file and run the same command again.")


def _last_words(text: str) -> str:
    """The last two lines of a program's complaint, on one line, without what is secret in addresses."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("W:")]
    return redacted_text(" ".join(lines[-2:]))


def _plain_environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8"}
