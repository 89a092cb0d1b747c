"""The frame around every step: lock, nothing-to-do check, timing, and `record.json` beside the artefact.

A record holds the plan entry, digests of inputs and outputs, code version, container image, library versions, device, wall time,
peak memory and the step's own measurements. Its key covers entry, input digests and code, so a command that finds the key and
the outputs unchanged has nothing to do; large files that did not change are not read to find that out (file_digests.py).
Identities are relative paths: moving the folder changes nothing.
"""

import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from anchored import __version__, steps
from anchored.errors import InputError
from anchored.file_digests import FileDigests
from anchored.files import file_digest, sweep, value_digest, write_bytes, write_json
from anchored.image import image, require_watched_code
from anchored.locks import exclusive, in_cluster_job
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.steps import PACKAGE, code_digest

log = logging.getLogger("anchored")

# In place of the command that makes an input: none does.
FOREIGN = ""

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "polars", "scikit-learn", "scikit-image",
              "safetensors", "pillow", "zstandard")  # fmt: skip
"""Packages whose versions a record names: results can depend on them."""


@dataclass
class Running:
    """What a step is told (digests of its inputs, the key of its result) and what it reports while it runs.

    `digest` gives the SHA-256 of a file; of an output that was asked for and did not change since, the record reads nothing again.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    digest: Callable[[Path], str] = file_digest
    measurements: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def measure(self, **values: Any) -> None:
        """Adds JSON values to the record's `measurements`."""
        self.measurements.update(values)


@dataclass(frozen=True)
class Step:
    """One step on one entry of the plan.

    Args:
        step: the command's verb, a key of `steps.MODULES`.
        name: the entry's name.
        entry: all that the step was told to do.
        paths: the folder layout.
        inputs: files that are read, each with the command that makes it, or FOREIGN.
        outputs: files (or folders) that are written, without the record.
        record: where the record goes.
    """

    step: str
    name: str
    entry: Any
    paths: Paths
    inputs: Mapping[Path, str]
    outputs: list[Path]
    record: Path

    @cached_property
    def _digests(self) -> FileDigests:
        return FileDigests(self.paths.work("digests") / f"{self.step}-{self.name}.json", self.paths.root)

    @contextmanager
    def run(self, *, force: bool = False) -> Iterator[Running | None]:
        """Yields None where there is nothing to do; else yields the running step and writes its record afterwards.

        Raises:
            InputError: an input is missing.
            EnvironmentFailure: another process runs the same step; or the step runs in an image of other code.
        """
        with exclusive(f"{self.step} {self.name}", self.paths, wait=in_cluster_job()):
            require_watched_code(self.step, self.paths.root)
            digests = self._input_digests()
            code = code_digest(self.step)
            key = self._key(digests, code)
            up_to_date = not force and self._up_to_date(key)
            self._digests.save()
            if up_to_date:
                log.info("%s %s: nothing to do, %s is up to date", self.step, self.name, self.record)
                yield None
                return
            for path in (*self.outputs, self.record):
                sweep(path)
            running = Running(inputs=digests, key=key, digest=self._digests)
            started, clock = datetime.now(UTC), time.perf_counter()
            with self._without_record():
                yield running
            write_json(
                self.record,
                {
                    "schema": 1,
                    "step": self.step,
                    "name": self.name,
                    "key": key,
                    "entry": self.entry,
                    "inputs": digests,
                    "outputs": {self._relative(path): path_digest(path, self._digests) for path in self.outputs},
                    "code": {"version": __version__, "digest": code, **_commit()},
                    "image": image(),
                    "libraries": _libraries(),
                    "device": running.device,
                    "machine": {"system": platform.platform(), "processor": _processor(), "cpus": os.cpu_count()},
                    "started": started.isoformat(timespec="seconds"),
                    "wall_seconds": round(time.perf_counter() - clock, 3),
                    "peak_memory_mib": _peak_memory(),
                    "measurements": running.measurements,
                },
            )
            self._digests.save()
            log.info("%s %s: done in %.1f s", self.step, self.name, time.perf_counter() - clock)

    @contextmanager
    def _without_record(self) -> Iterator[None]:
        """Takes the old record away: it would vouch for outputs that are about to change. Where the step fails before it changes
        any (its sources are gone, say), the record is put back, for it is true, though of another key than the present one.
        """
        try:
            before = self.record.read_bytes()
        except OSError:
            before = None
        self.record.unlink(missing_ok=True)
        try:
            yield
        except Exception:
            if before is not None and self._vouches(before):
                write_bytes(self.record, before)
            raise

    def is_up_to_date(self) -> bool:
        """Whether the record vouches for the outputs, given the present inputs, plan entry and code."""
        if not all(path.exists() for path in self.inputs):
            return False
        return self._up_to_date(self._key(self._input_digests(), code_digest(self.step)))

    def is_intact(self) -> bool:
        """Whether the record is of the present outputs, be they of the present inputs, plan and code or not."""
        try:
            return self._vouches(self.record.read_bytes())
        except OSError:
            return False

    def _key(self, digests: Mapping[str, str], code: str) -> str:
        return value_digest({"step": self.step, "entry": self.entry, "inputs": dict(digests), "code": code})

    def _relative(self, path: Path) -> str:
        # A file outside of the root folder counts by its name: where it lies says nothing about the result.
        return path.relative_to(self.paths.root).as_posix() if path.is_relative_to(self.paths.root) else path.name

    def _input_digests(self) -> dict[str, str]:
        missing = {path: command for path, command in self.inputs.items() if not path.exists()}
        if missing:
            first = ", ".join(map(str, list(missing)[:3])) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise InputError(
                f"{self.step} {self.name} needs {len(self.inputs)} files, {len(missing)} of them missing: {first}.",
                f"run `{next(iter(missing.values()))}`{' and the like' if len(missing) > 1 else ''}, or let snakemake do so.",
            )
        return {self._relative(path): self._input_digest(path) for path in self.inputs}

    def _input_digest(self, path: Path) -> str:
        foreign = self.inputs[path] == FOREIGN
        return stat_digest(path) if foreign and path.suffix.lower() in steps.BY_STAT else self._digests(path)

    def _up_to_date(self, key: str) -> bool:
        try:
            return self._vouches(self.record.read_bytes(), key)
        except OSError:
            return False

    def _vouches(self, text: bytes, key: str | None = None) -> bool:
        """Whether a record is of the present outputs, and of `key` where it is given."""
        try:
            record = json.loads(text)
            found, made = record["key"], record["outputs"]
        except (ValueError, KeyError, TypeError):
            return False
        return key in (None, found) and all(
            path.exists() and made.get(self._relative(path)) == path_digest(path, self._digests) for path in self.outputs
        )


def planned_step(plan: Plan, kind: str, name: str, paths: Paths) -> Step:
    """The frame of the entry `name` in the plan's map `kind`, or of evaluate and tables; files are those of `steps.py`."""
    made, record = steps.split_record(steps.outputs(kind, name, paths))
    # A foreign file that is missing is reported by the step, which knows what to do about it.
    foreign = {path: FOREIGN for path in steps.foreign_inputs(kind, name, plan, paths) if path.is_file()}
    return Step(
        step=steps.STEP_OF[kind],
        name=name,
        # Steps over all runs are told everything: their entry is the part of the plan that they read.
        entry=lookup(plan, steps.ENTRY_OF.get(kind, kind), name) if kind in plan else _whole(plan),
        paths=paths,
        inputs=steps.inputs(kind, name, plan, paths) | foreign,
        outputs=made,
        record=record,
    )


def _whole(plan: Plan) -> dict[str, Any]:
    return {"name": plan["name"], "seed": plan["seed"], "experiments": plan["experiments"], "digest": value_digest(plan)}


def stat_digest(path: Path) -> str:
    """Size and time of change of a file, for files that take too long to read."""
    found = path.stat()
    return f"stat:{found.st_size}:{found.st_mtime_ns}"


def path_digest(path: Path, digest: Callable[[Path], str] = file_digest) -> str:
    """SHA-256 of a file, or of the names and digests of a folder's files; hidden ones (Snakemake's time stamp) do not count."""
    if not path.is_dir():
        return digest(path)
    files = sorted(member for member in path.rglob("*") if member.is_file() and not member.name.startswith("."))
    return value_digest({member.relative_to(path).as_posix(): digest(member) for member in files})


def _commit() -> dict[str, Any]:
    if inside := image():
        return {"commit": inside["revision"], "modified": inside["modified"]}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", str(PACKAGE)) if commit else None
    return {"commit": commit, "modified": bool(changed) if changed is not None else None}


def _libraries() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _peak_memory() -> dict[str, int]:
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak["device"] = torch.cuda.max_memory_allocated() >> 20
    return peak
