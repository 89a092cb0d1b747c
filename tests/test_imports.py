"""What an import costs."""

import subprocess
import sys

import pytest

from anchored import steps

HEAVY = ("torch", "timm", "numpy", "pandas", "polars", "sklearn", "skimage", "snakemake", "dvc", "matplotlib")
PACKAGE = steps.PACKAGE


LIGHT = ("anchored", "anchored.plan", "anchored.paths", "anchored.steps", "anchored.cli", "anchored.adopt",
         "anchored.doctor.command")  # fmt: skip


@pytest.mark.parametrize("module", LIGHT)
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
