"""The installed packages against requirements.lock: other versions may give other last digits."""

import platform
from collections.abc import Iterator
from importlib import metadata

from anchored.doctor.finding import Finding, Patient, error, ok, warning
from anchored.record import LIBRARIES

LOCK = "requirements.lock"
_NAMED = 4


def check(patient: Patient) -> Iterator[Finding]:
    """Python, and every package of the lock."""
    yield ok("python", f"{platform.python_version()} ({platform.python_implementation()})")
    lock = patient.root / LOCK
    if not lock.is_file():
        yield warning("packages", f"{lock} is missing, so versions were compared with nothing.", "run this in a checkout.")
        return
    wanted = read_lock(lock.read_text())
    absent, other = compare(wanted)
    needed = [name for name in absent if name in LIBRARIES]
    if needed:
        yield error("packages", f"{len(needed)} packages are missing: {', '.join(needed)}.", "run `make install`.")
    elif absent:
        yield warning("packages", f"{_listed(absent)} of {LOCK} are not installed: an engine may lack them.", "run `make install`.")
    if other:
        text = _listed([f"{name} {found} (lock {wanted[name]})" for name, found in other.items()])
        yield warning(
            "packages",
            f"{len(other)} of {len(wanted)} versions differ from {LOCK}: {text}. Tables may differ in their last digits.",
            "run `make install`; `make lock` if you mean it.",
        )
    if not absent and not other:
        yield ok("packages", f"all {len(wanted)} as in {LOCK}")


def read_lock(text: str) -> dict[str, str]:
    """Name -> version; packages for other systems only, which have a marker, are left out."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    pins = (line.split("==") for line in lines if "==" in line and ";" not in line)
    return {name.strip(): version.strip() for name, version in pins}


def compare(wanted: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Names of packages that are missing, and the versions of those that are others; torch's "+cpu" does not count."""
    absent, other = [], {}
    for name, version in wanted.items():
        try:
            found = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            absent.append(name)
            continue
        if found != version:
            other[name] = found
    return absent, other


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


