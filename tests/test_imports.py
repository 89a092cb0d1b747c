"""What an import costs, and that the table of code modules is what the steps really import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from anchored import steps

HEAVY = ("torch", "timm", "numpy", "pandas", "polars", "sklearn", "skimage", "snakemake", "dvc", "matplotlib")
PACKAGE = steps.PACKAGE

# The frame around every step: locks, records, files, names. It computes no number of a result.
FRAME = {
    "__init__.py", "compat.py", "device.py", "errors.py", "files.py",
    "locks.py", "paths.py", "progress.py", "record.py",
    "steps.py",
    "plan/__init__.py", "plan/load.py", "plan/naming.py",
}  # fmt: skip
ENTRY = {
    "prepare": "anchored.data.step", "pretrain": "anchored.pretrain", "fim": "anchored.fisher.step",
    "finetune": "anchored.finetune.step", "evaluate": "anchored.evaluate.step", "tables": "anchored.report.step",
}  # fmt: skip


@pytest.mark.parametrize("module", ["anchored", "anchored.plan", "anchored.paths", "anchored.steps", "anchored.cli"])
def test_import_is_light(module):
    """Engines import these in every job, and `--help` must not take five seconds: torch alone takes two."""
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_plan_package_needs_only_the_standard_library():
    """Snakemake's own environment may hold nothing but Snakemake when it loads the plan."""
    code = "import sys, anchored.plan, anchored.paths, anchored.steps; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-S", "-c", f"sys_path = {sys.path!r}; import sys; sys.path[:] = sys_path; {code}"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    foreign = set(done.stdout.split()) - set(sys.stdlib_module_names) - {"anchored", "__main__"}
    assert {name for name in foreign if not name.startswith("_")} == set()


@pytest.mark.parametrize("step", sorted(steps.MODULES))
def test_code_of_a_step_covers_its_imports(step):
    """Engines cannot follow imports: `pretrain.py` was once declared as a folder and its changes made nothing stale."""
    declared = {path.relative_to(PACKAGE).as_posix() for path in steps.code_files(step)}
    assert all((PACKAGE / path).is_file() for path in declared)
    assert _imported(ENTRY[step]) - FRAME - declared == set()


def _imported(start: str) -> set[str]:
    """All source files of the package that a module imports, directly or not."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        path = _source(waiting.pop())
        if path is None or path.relative_to(PACKAGE).as_posix() in found:
            continue
        found.add(path.relative_to(PACKAGE).as_posix())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("anchored"):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def _source(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found.exists()), None)
