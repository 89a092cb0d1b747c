"""The miniature study for real: `snakemake` in one checkout, `dvc repro` in another, and every way to cross over."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import Checkout

pytestmark = pytest.mark.workflow
ENGINES = ("snakemake", "dvc")
Copy = Callable[[str], Checkout]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_finished_run_has_nothing_to_do_in_a_moved_checkout(made_by: Copy, engine: str):
    assert made_by(engine).would_run(engine) == set()


def test_without_adopting_dvc_would_make_everything_again(made_by: Copy):
    assert "anchored prepare bank" in made_by("snakemake").would_run("dvc")


def test_adopting_what_the_engine_did_not_make_is_refused(made_by: Copy):
    done = made_by("snakemake").run("anchored", "adopt", "--from", "dvc", check=False)
    assert done.returncode == 3
    assert "11 of 11 steps have no up-to-date result: evaluate, fim_merge@fim, fim_shard@fim-shard-1" in done.stderr
    assert "run `dvc repro` (or `dvc pull`) first." in done.stderr


def test_after_adopting_neither_engine_has_anything_to_do(adopted: Checkout, by_snakemake: Checkout):
    assert adopted.would_run("snakemake") == set()
    assert adopted.would_run("dvc") == set()
    assert adopted.results() == by_snakemake.results()


def test_one_lambda_runs_one_job_in_both_engines(adopted: Checkout, tmp_path: Path):
    """Snakemake finds no metadata of DVC's outputs; adopting must write it, or the edit would go unnoticed."""
    checkout = adopted.copy(tmp_path / "edited")
    checkout.edit("config.yaml", "strength: [1.0, 30.0]", "strength: [1.0, 10.0]")
    checkout.compile()
    affected = {"anchored finetune res-resnet-ewc-2", "anchored evaluate", "anchored tables"}
    assert checkout.would_run("snakemake") == affected
    assert checkout.would_run("dvc") == affected


@pytest.mark.parametrize("engine", ENGINES)
def test_an_edit_of_code_runs_its_step_only(made_by: Copy, engine: str):
    checkout = made_by(engine)
    assert edited(checkout, engine) == {"anchored tables"}
    assert checkout.would_run(engine) == set()


@pytest.mark.parametrize("engine", ENGINES)
def test_an_edit_of_code_is_noticed_after_adopting(adopted: Checkout, tmp_path: Path, engine: str):
    """Snakemake compares the digest with the one that it recorded, so adopting must record it."""
    checkout = adopted.copy(tmp_path / "edited")
    assert edited(checkout, engine) == {"anchored tables"}
    assert checkout.would_run(engine) == set()


def edited(checkout: Checkout, engine: str) -> set[str]:
    """What an engine would run while a module of the report is another."""
    module = checkout.path / "src" / "anchored" / "report" / "text.py"
    original = module.read_text()
    module.write_text(original + "\n# edited\n")
    found = checkout.would_run(engine)
    module.write_text(original)
    return found


def test_git_sees_the_tables_and_the_figures_only(by_snakemake: Checkout, by_dvc: Checkout):
    for checkout, lock in ((by_snakemake, set()), (by_dvc, {"dvc.lock"})):
        shown = {line[3:] for line in checkout.run("git", "status", "--porcelain").stdout.splitlines()}
        assert shown == {"results/"} | lock
        inside = checkout.run("git", "status", "--porcelain", "--untracked-files=all").stdout
        assert {Path(line[3:]).parts[1] for line in inside.splitlines() if line[3:].startswith("results")} == {"tables", "figures"}


def test_a_failed_job_shows_its_log_and_stops_no_other(made_by: Copy):
    checkout = made_by("snakemake")
    (checkout.path / "results" / "fim" / "fim" / "fim.safetensors").write_bytes(b"torn")
    checkout.run("snakemake", "--touch", "fims")
    shutil.rmtree(checkout.path / "results" / "runs" / "res-resnet-erm-1")
    done = checkout.run("snakemake", "--cores", "2", "runs", check=False)
    assert done.returncode == 1
    assert "Logfile logs/finetune/res-resnet-ewc-1.log" in done.stderr
    assert "fim.safetensors is truncated or no safetensors file" in done.stderr
    assert (checkout.path / "results" / "runs" / "res-resnet-erm-1" / "record.json").is_file()


def test_a_step_writes_the_log_that_its_rule_names(by_snakemake: Checkout):
    """Snakemake shows it when the step fails; the file is there, empty, even where the step writes another."""
    logs = [path for path in (by_snakemake.path / "logs").rglob("*.log")]
    assert len(logs) == 11
    assert [path.name for path in logs if not path.stat().st_size] == []


def test_the_report_of_snakemake_holds_the_tables(made_by: Copy):
    checkout = made_by("snakemake")
    checkout.run("snakemake", "--report", "report.zip")
    with zipfile.ZipFile(checkout.path / "report.zip") as archive:
        names = archive.namelist()
    assert any(name.endswith("tuned.csv") for name in names), names
    assert any(name.endswith(".svg") for name in names), names
