"""`steps.MODULES` names what each step runs: the imports of the commands are followed here, since engines cannot."""

import ast
from pathlib import Path

import pytest

from anchored.steps import MODULES, PACKAGE, code_files

# The frame around every step: it locks, writes files and records, and computes no number of a result.
FRAME = {"cli", "compat", "device", "errors", "file_digests", "files", "image", "locks", "paths", "plan", "processes", "progress",
         "provenance", "record", "steps"}  # fmt: skip

ENTRY = {
    "prepare": "preparation/step.py",
    "pretrain": "pretrain.py",
    "fim": "fisher/step.py",
    "fim-merge": "fisher/step.py",
    "finetune": "finetune/step.py",
    "evaluate": "evaluate/step.py",
    "tables": "report/step.py",
}

# Code of a command beside the steps, in a folder that is documented and taken over as a whole.
BESIDE = {PACKAGE / "fisher/check.py"}


def imported(file: Path) -> set[Path]:
    """Files of the package that a file imports, the frame left out."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively; this test follows absolute imports"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "anchored" and len(parts) > 1 and parts[1] not in FRAME:
                path = PACKAGE.joinpath(*parts[1:])
                found |= {candidate for candidate in (path.with_suffix(".py"), path / "__init__.py") if candidate.is_file()}
    return found


def reached(file: Path) -> set[Path]:
    """All files of the package that run when `file` does."""
    seen = {file}
    pending = [file]
    while pending:
        new = imported(pending.pop()) - seen
        seen |= new
        pending += new
    return seen


@pytest.mark.parametrize("step", MODULES)
def test_all_code_that_a_step_imports_is_its_input(step: str):
    """Once, `pretrain.py` itself was missing: a module was looked up as a folder."""
    missing = reached(PACKAGE / ENTRY[step]) - set(code_files(step))
    assert missing == set(), f"add them to MODULES['{step}'] in src/anchored/steps.py and to dvc.yaml"


@pytest.mark.parametrize("step", MODULES)
def test_every_module_of_a_step_exists(step: str):
    assert all((PACKAGE / module).exists() for module in MODULES[step])


@pytest.mark.parametrize("step", MODULES)
def test_no_step_waits_for_code_that_it_does_not_run(step: str):
    """Code that is an input without need makes hours of training stale."""
    files = reached(PACKAGE / ENTRY[step])
    unused = [module for module in MODULES[step] if not any(PACKAGE / module in (file, *file.parents) for file in files)]
    assert unused == []


@pytest.mark.parametrize("folder", sorted({module for modules in MODULES.values() for module in modules if "." not in module}))
def test_every_file_of_a_folder_runs_in_a_step_that_waits_for_it(folder: str):
    """Readers of raw files lay in a folder of fine-tuning once: a word changed in one made every run stale."""
    steps = [step for step, modules in MODULES.items() if folder in modules]
    run = set().union(*(reached(PACKAGE / ENTRY[step]) for step in steps))
    idle = {file for file in (PACKAGE / folder).rglob("*.py") if file.name != "__init__.py"} - run - BESIDE
    assert idle == set(), f"none of {', '.join(steps)} runs them: move them out of src/anchored/{folder}"
