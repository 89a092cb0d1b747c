"""`make` on machines that lack something."""

import subprocess

from checkout import REPOSITORY


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "--no-print-directory", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_without_a_python_make_says_what_to_install(tmp_path):
    done = make("install", f"PYTHON={tmp_path}/python", f"VENV={tmp_path}/venv")
    assert done.returncode == 2
    assert "no Python >= 3.11 with the modules venv and ensurepip was found" in done.stderr
    assert "make install PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_all_packages_are_installed_by_one_command_each():
    """Two commands could replace torch by another build."""
    for target, files in (("install", 1), ("lint", 2)):
        plan = make("--dry-run", "--always-make", target).stdout
        installs = [line for line in plan.splitlines() if "pip install" in line and "--requirement" in line]
        assert len(installs) == 1
        assert installs[0].count("--requirement") == files
