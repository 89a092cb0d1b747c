"""A checkout in a temporary folder: what the engines need, with a plan, under git."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from anchored.plan.compile import compile_plan

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
ENGINE_FILES = (
    "Snakefile", "workflow", "profiles", "dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvc/plots", ".dvcignore", ".gitignore"
)  # fmt: skip
AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@localhost")

# They tell when, where and how fast; everything else depends on the plan alone.
TIMED = ("record.json", "report.html")


@dataclass(frozen=True)
class Checkout:
    """A folder with all that the engines need, which runs its own copy of the package.

    Args:
        path: the folder.
        variables: of the environment, such as those that lead to a cluster.
    """

    path: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, *command: str | Path, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs a program of this environment; a failure fails the test with what the program printed."""
        done = subprocess.run(
            [*map(str, command)], cwd=self.path, env=self.environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-6000:]}")
        return done

    @property
    def environment(self) -> dict[str, str]:
        """What programs need to run here: this environment, this copy of the package, nobody's settings."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_", "SNAKEMAKE_"))}
        inherited |= self.variables
        return inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}",
            "PYTHONPATH": str(self.path / "src"),
            "DVC_SITE_CACHE_DIR": str(self.path.parent / "dvc-site"),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    def graph(self, engine: str, *plan: str) -> list[dict[str, Any]]:
        """The nodes of an engine's graph."""
        return json.loads(self.run(sys.executable, HERE / "engine_graphs.py", engine, self.path, *plan).stdout)

    def would_run(self, engine: str) -> set[str]:
        """The commands that an engine would run now."""
        dry = {"snakemake": ("snakemake", "--dry-run"), "dvc": ("dvc", "repro", "--dry")}[engine]
        done = self.run(*dry)
        return set(re.findall(r"^(?:Shell command: |> )(anchored .*)$", done.stdout + done.stderr, flags=re.MULTILINE))

    def results(self) -> dict[str, bytes]:
        """The content of all results that depend on the plan alone."""
        files = (path for path in (self.path / "results").rglob("*") if path.is_file() and not path.name.startswith("."))
        return {str(path.relative_to(self.path)): path.read_bytes() for path in files if not path.name.endswith(TIMED)}

    def edit(self, file: str, old: str, new: str) -> None:
        """Replaces a text that the file holds exactly once."""
        text = (self.path / file).read_text()
        assert text.count(old) == 1, f"{file} holds {text.count(old)} times: {old}"
        (self.path / file).write_text(text.replace(old, new))

    def compile(self) -> None:
        """Writes plan.json anew from the configuration."""
        compile_plan(self.path / "config.yaml", self.path / "plan.json")

    def commit(self, message: str) -> None:
        """Commits everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", *AUTHOR, "commit", "--quiet", "--message", message)

    def clone(self, path: Path) -> "Checkout":
        """A fresh clone: what git has, nothing else."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.run("git", "clone", "--quiet", self.path, path)
        return Checkout(path)

    def copy(self, path: Path) -> "Checkout":
        """A copy somewhere else, with results and the state of the engines."""
        shutil.copytree(self.path, path, symlinks=True)
        return Checkout(path, self.variables)


def check_out(path: Path, config: str) -> Checkout:
    """A new checkout with the plan of the YAML `config`, under git, as DVC wants it."""
    for name in (*ENGINE_FILES, "src"):
        source, target = REPOSITORY / name, path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    (path / "config.yaml").write_text(config)
    made = Checkout(path)
    made.compile()
    made.run("git", "init", "--quiet")
    made.commit("checkout")
    return made
