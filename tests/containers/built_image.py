"""The image, built from this checkout for tests.

Docker Hub's Debian is not asked for: the base is a root folder that mmdebstrap makes of Debian's signed packages, the same release.
ANCHORED_IMAGE_FOLDER keeps image and wheels for the next session; containers/build then builds only what changed.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkout import REPOSITORY
from requirement import unavailable

PROGRAMS = ("podman", "mmdebstrap", "apptainer", "mksquashfs")
KEPT = "ANCHORED_IMAGE_FOLDER"
BASE = "localhost/debian:bookworm"
CONTEXT = (".dockerignore", "LICENSE", "README.md", "containers", "pyproject.toml", "src")
# Debian's image leaves these files out, too, and keeps every package's copyright.
LEFT_OUT = ("path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/doc/*",
            "path-include=/usr/share/doc/*/copyright")  # fmt: skip


@dataclass(frozen=True)
class Image:
    """What containers/build left.

    Args:
        folder: with all that belongs to the image; `checkout` in it is what was built.
        sif: the file that Apptainer runs.
        told: containers/anchored.json.
    """

    folder: Path
    sif: Path
    told: dict[str, Any]

    @property
    def settings(self) -> dict[str, str]:
        """The variables of the build."""
        return _settings(self.folder)

    def engine(self, *arguments: str) -> str:
        """What podman prints."""
        done = subprocess.run([*_podman(self.folder).split(), *arguments], capture_output=True, text=True, check=True, timeout=600)
        return done.stdout

    def execute(self, *command: str, cwd: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a program inside of the SIF as Snakemake does."""
        call = ["apptainer", "--quiet", "exec", "--home", str(cwd), str(self.sif), *command]
        done = subprocess.run(
            call, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=600
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done


@contextmanager
def built_image() -> Iterator[Image]:
    """The image of this checkout, as long as the block runs. Skips the test where a program is missing."""
    if lacking := [program for program in PROGRAMS if shutil.which(program) is None]:
        unavailable("containers", f"this machine lacks {', '.join(lacking)}; see .ci/install-containers.")
    if os.geteuid() != 0:
        unavailable("containers", "mmdebstrap and an isolation by chroot need root here.")
    kept = os.environ.get(KEPT)
    folder = Path(kept or tempfile.mkdtemp(prefix="image-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        checkout = _context(folder / "checkout")
        _base(folder)
        told = build(checkout, folder)
        yield Image(folder, checkout / "containers" / "anchored.sif", told)
    finally:
        _unmount(folder)
        if not kept:
            shutil.rmtree(folder)


def build(checkout: Path, folder: Path) -> dict[str, Any]:
    """Runs containers/build; what it says of the image."""
    program, environment = checkout / "containers" / "build", os.environ | _settings(folder)
    done = subprocess.run([program], cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=3000)
    if done.returncode:
        pytest.fail(f"containers/build ended with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-6000:]}")
    return json.loads((checkout / "containers" / "anchored.json").read_text())


def _settings(folder: Path) -> dict[str, str]:
    return {
        "ENGINE": _podman(folder),
        "BASE": BASE,
        # No user namespace and no cgroup: works in a container and in a small virtual machine, too. One layer a stage.
        "BUILD_FLAGS": "--isolation=chroot --network=host --layers=false",
        "COMPRESSION": "-comp zstd -Xcompression-level 1",
        "TMPDIR": str(folder),
    }


def _unmount(folder: Path) -> None:
    """Takes away what podman leaves mounted in its store."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed([point for point in points if Path(point).is_relative_to(folder)]):
        subprocess.run(["umount", "--lazy", point], check=True)


def _podman(folder: Path) -> str:
    return f"podman --root {folder}/store --runroot {folder}/run --storage-driver overlay"


def _context(checkout: Path) -> Path:
    """A checkout with what goes into the image, committed."""
    keep = {"wheels", "anchored.sif", "anchored.json", "anchored.sbom.json"}
    for name in CONTEXT:
        source, target = REPOSITORY / name, checkout / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
            continue
        for old in target.iterdir() if target.is_dir() else ():
            if old.name not in keep:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", *keep), dirs_exist_ok=True)
    (checkout / "containers" / "wheels").mkdir(exist_ok=True)
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (("init", "--quiet"), ("add", "--all"), (*identity, "commit", "--quiet", "--allow-empty", "--message", "image")):
        subprocess.run(["git", *command], cwd=checkout, check=True, capture_output=True)
    return checkout


def _base(folder: Path) -> None:
    """Debian as an image of the store, unless it is there."""
    podman = _podman(folder).split()
    if subprocess.run([*podman, "image", "exists", BASE], check=False).returncode == 0:
        return
    archive = folder / "base.tar"
    options = [f"--dpkgopt={option}" for option in LEFT_OUT]
    made = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", *options, "bookworm", archive], capture_output=True, text=True, check=False
    )
    if made.returncode:
        unavailable("containers", f"Debian's packages cannot be had: {made.stderr[-1000:]}")
    subprocess.run([*podman, "import", "--quiet", archive, BASE], check=True, capture_output=True)
    archive.unlink()
