"""What `anchored adopt` refuses, in the words that the user reads."""

import json
import sys
from pathlib import Path

import pytest

from anchored.adopt import adopt
from anchored.errors import ConfigError, EnvironmentFailure, InputError
from anchored.paths import Paths
from anchored.plan.compile import compile_plan


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A plan without results."""
    compile_plan(Path(__file__).with_name("mini.yaml"), tmp_path / "plan.json")
    return tmp_path / "plan.json"


def adopt_from(source: str, plan_file: Path, root: Path | None = None) -> None:
    adopt(source, json.loads(plan_file.read_text()), plan_file, Paths(root or plan_file.parent))


def test_an_unknown_engine_is_refused(empty: Path):
    with pytest.raises(ConfigError, match="'make' is no engine"):
        adopt_from("make", empty)


def test_missing_results_are_counted_and_the_first_named(empty: Path):
    with pytest.raises(InputError) as refused:
        adopt_from("snakemake", empty)
    assert "11 of 11 steps have no up-to-date result: prepare scenes, prepare bank, pretrain resnet" in str(refused.value)
    assert "and 6 more" in str(refused.value)
    assert "run `snakemake`" in str(refused.value)


def test_a_plan_that_dvc_does_not_read_is_refused(empty: Path):
    other = empty.rename(empty.with_name("other.json"))
    with pytest.raises(ConfigError, match=r"dvc\.yaml reads plan\.json"):
        adopt_from("snakemake", other)


def test_a_missing_program_is_named(empty: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", str(empty.parent / "bin" / "python"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnvironmentFailure, match="snakemake is not installed") as refused:
        adopt_from("dvc", empty)
    assert "make install" in refused.value.hint


def test_a_folder_that_dvc_does_not_know_is_an_environment_failure(empty: Path):
    with pytest.raises(EnvironmentFailure, match="`dvc status --json` failed"):
        adopt_from("dvc", empty)
