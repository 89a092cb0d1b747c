"""One miniature study for the whole test session: prepared, pre-trained and measured once through the real steps."""

import copy
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from anchored.files import write_json
from anchored.paths import Paths
from anchored.plan.expand import expand
from anchored.plan.read import read_config

pytest_plugins = ["ways"]

TESTS = Path(__file__).parent
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")

# Before torch and polars are imported: other thread counts give other bits, and tests share their cores.
os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))


# An example that takes long on a busy machine is no failure.
settings.register_profile("anchored", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anchored")


@dataclass
class Outcome:
    """What a command left behind for its user."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random weights and images are those of the test, whatever ran before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return TESTS.parent


@pytest.fixture(scope="session")
def mini_plan() -> dict[str, Any]:
    """The plan of `mini.yaml`; tests must not change it."""
    return expand(read_config(TESTS / "mini.yaml"))


@pytest.fixture(scope="session")
def mini(mini_plan: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A folder with plan.json, every dataset, backbone and FIM of the miniature plan; tests must not change it."""
    from anchored.fisher.step import fim
    from anchored.preparation.step import prepare
    from anchored.pretrain import pretrain

    paths = Paths(tmp_path_factory.mktemp("mini"))
    write_json(paths.root / "plan.json", mini_plan)
    for dataset in mini_plan["datasets"]:
        prepare(mini_plan, dataset, paths)
    for backbone in mini_plan["backbones"]:
        pretrain(mini_plan, backbone, paths)
    for name in mini_plan["fims"]:
        fim(mini_plan, name, paths)
    return paths


@pytest.fixture
def mini_copy(mini: Paths, tmp_path: Path) -> Paths:
    """A copy of the miniature study that a test may damage."""
    shutil.copytree(mini.root, tmp_path / "study")
    return Paths(tmp_path / "study")


@pytest.fixture
def change_plan(mini_plan: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """change_plan({("cells", "name", "training", "epochs"): 3}) -> a copy of the plan with these values."""

    def change(values: dict[tuple[str, ...], Any]) -> dict[str, Any]:
        plan = copy.deepcopy(mini_plan)
        for path, value in values.items():
            entry = plan
            for key in path[:-1]:
                entry = entry[key]
            entry[path[-1]] = value
        return plan

    return change


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """run_cli("prepare", "scenes", root=...) runs a command inside this process; unexpected exceptions fail the test."""
    from typer.testing import CliRunner

    from anchored.cli import app

    for variable in THREAD_VARIABLES:  # the commands set them; afterwards they are again as they were
        monkeypatch.setenv(variable, "1")

    def run(*arguments: str, root: Path | None = None) -> Outcome:
        options = [] if root is None else ["--root", str(root), "--plan", str(root / "plan.json")]
        done = CliRunner().invoke(app, [*arguments, *options])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Outcome(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def run_process() -> Callable[..., Outcome]:
    """run_process("fim", "x", cwd=...) runs the installed command in a process of its own."""

    def run(*arguments: str, cwd: Path, **options: Any) -> Outcome:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("anchored")), *arguments],
            cwd=cwd, capture_output=True, text=True, timeout=300, check=False, **options,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
