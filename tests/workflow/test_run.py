"""`anchored run` on one machine, with the real Snakemake: what it says, what it refuses, and how it continues."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import Checkout
from fault_table import COMMANDS

from anchored.launcher.leftovers import RULES, Unknown, unknown_results
from anchored.paths import Paths
from anchored.plan.load import load_plan
from anchored.steps import STEP_OF, outputs

pytestmark = pytest.mark.workflow
JOB = "res-resnet-erm-1"


@pytest.fixture
def checkout(by_snakemake: Checkout, tmp_path: Path) -> Checkout:
    """A finished study that a test may damage."""
    return by_snakemake.copy(tmp_path / "checkout")


def background(checkout: Checkout, *words: str) -> "subprocess.Popen[str]":
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(checkout.path / "src")}
    return subprocess.Popen(["anchored", "run", *words], cwd=checkout.path, env=environment, stderr=subprocess.PIPE, text=True)


def until(reached: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.1)


def remove(checkout: Checkout, job: str) -> None:
    for file in (checkout.path / "results" / "runs" / job).iterdir():
        file.unlink()


def test_nothing_to_do_is_exit_code_0(checkout: Checkout):
    done = checkout.run("anchored", "run", "--cores", "2")
    assert "Nothing to be done" in done.stderr


def test_a_target_that_does_not_exist_is_exit_code_2(checkout: Checkout):
    done = checkout.run("anchored", "run", "nonsense", check=False)
    assert done.returncode == 2
    assert "error: Snakemake did not start." in done.stderr


def test_a_profile_that_does_not_exist_names_those_that_do(checkout: Checkout):
    done = checkout.run("anchored", "run", "--profile", "nonsense", check=False)
    assert done.returncode == 2
    assert "profiles here: default" in done.stderr


def test_failed_steps_are_named_with_their_logs_and_sentences(checkout: Checkout):
    (checkout.path / "results" / "fim" / "fim" / "fim.safetensors").write_bytes(b"torn")
    checkout.run("snakemake", "--touch", "fims")
    remove(checkout, JOB)
    done = checkout.run("anchored", "run", "--cores", "2", "runs", check=False)
    assert done.returncode == 1
    said = done.stderr.split("error: ")[-1]
    assert said.startswith("2 steps failed; all others that could run are done.")
    assert "finetune_anchored: results/fim/fim/fim.safetensors is truncated or no safetensors file" in said
    assert "log: logs/finetune/res-resnet-ewc-1.log" in said
    assert "type the same command again: finished steps are kept" in said
    assert (checkout.path / "results" / "runs" / JOB / "record.json").is_file()


def test_options_after_two_dashes_are_snakemakes(checkout: Checkout):
    done = checkout.run("anchored", "run", "runs", "--", "--summary")
    assert f"results/runs/{JOB}/predictions.parquet\t" in done.stdout


def test_a_dry_run_says_what_would_be_done(checkout: Checkout):
    remove(checkout, JOB)
    done = checkout.run("anchored", "run", "--dry-run", "runs")
    assert f"anchored finetune {JOB}" in done.stdout + done.stderr
    assert not (checkout.path / "work" / "run.json").exists()


def test_a_killed_run_is_unlocked_by_the_next_one(checkout: Checkout):
    """Launcher and Snakemake end at once, as when the machine is switched off."""
    remove(checkout, JOB)
    first = background(checkout, "--cores", "1", "runs")
    until(lambda: list((checkout.path / ".snakemake" / "incomplete").glob("*")))
    second = checkout.run("anchored", "run", "--cores", "1", "runs", check=False)
    assert second.returncode == 5
    assert "another process is running anchored run" in second.stderr
    first.kill()
    first.wait()
    refused = checkout.run("anchored", "run", "--cores", "1", "runs", check=False)
    assert refused.returncode == 5
    assert "Snakemake is running in" in refused.stderr
    note = (checkout.path / "work" / "run.json").read_text()
    os.killpg(int(note.split('"process": ')[1].split(",")[0]), signal.SIGKILL)
    done = checkout.run("anchored", "run", "--cores", "1", "runs")
    assert "Snakemake's lock is stale" in done.stderr
    assert checkout.would_run("snakemake") <= {"anchored evaluate", "anchored tables"}


def test_ctrl_c_ends_everything_and_the_next_run_continues(checkout: Checkout):
    remove(checkout, JOB)
    first = background(checkout, "--cores", "1", "runs")
    until(lambda: list((checkout.path / ".snakemake" / "incomplete").glob("*")))
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=300)
    assert first.returncode == 130
    assert "interrupted; run the same command again to continue." in said
    done = checkout.run("anchored", "run", "--cores", "1", "runs")
    assert "stale" not in done.stderr


def test_results_of_lost_jobs_are_made_known_to_snakemake(checkout: Checkout):
    """It takes files without metadata for finished, but would not notice that their entry of the plan changed later."""
    job = "res-resnet-ewc-2"
    plan = load_plan(checkout.path / "plan.json")
    files = [str(path) for path in outputs("anchored", job, Paths())]
    assert unknown_results(plan, checkout.path) == Unknown()
    checkout.run("snakemake", "--cores", "1", "--cleanup-metadata", *files)
    assert unknown_results(plan, checkout.path) == Unknown({"anchored": files[:1]})
    (checkout.path / ".snakemake" / "locks").mkdir(exist_ok=True)
    (checkout.path / ".snakemake" / "locks" / "0.output.lock").write_text(f"{files[0]}\n")
    done = checkout.run("anchored", "run", "--cores", "1", "runs")
    assert "results of jobs that Snakemake had lost are kept: 1." in done.stderr
    assert "Nothing to be done" in done.stderr
    assert unknown_results(plan, checkout.path) == Unknown()
    checkout.edit("config.yaml", "strength: [1.0, 30.0]", "strength: [1.0, 10.0]")
    checkout.compile()
    assert f"anchored finetune {job}" in checkout.would_run("snakemake")


def test_half_a_result_of_a_killed_run_is_made_again(checkout: Checkout):
    """Snakemake takes a file without metadata for finished, whatever it holds."""
    folder = checkout.path / "results" / "runs" / JOB
    whole = (folder / "predictions.parquet").read_bytes()
    checkout.run("snakemake", "--cores", "1", "--cleanup-metadata", f"results/runs/{JOB}/predictions.parquet")
    (folder / "predictions.parquet").write_bytes(whole[:1000])
    (folder / "record.json").write_text('{"key": ')
    (checkout.path / ".snakemake" / "locks").mkdir(exist_ok=True)
    (checkout.path / ".snakemake" / "locks" / "0.output.lock").write_text(f"results/runs/{JOB}/predictions.parquet\n")
    done = checkout.run("anchored", "run", "--cores", "1", "runs")
    assert f"results/runs/{JOB}/predictions.parquet is no whole result of its step: it is made again." in done.stderr
    assert (folder / "predictions.parquet").read_bytes() == whole


def test_the_rules_of_every_map_are_those_of_the_snakefile(checkout: Checkout):
    rules = set(checkout.run("snakemake", "--list-rules").stdout.split())
    assert RULES.keys() == STEP_OF.keys()
    assert {rule for group in RULES.values() for rule in group} | {"all", "data", "backbones", "fims", "runs"} == rules


def test_the_commands_of_the_page_work_on_one_machine(checkout: Checkout):
    """Those for a cluster are run by the fault tests."""
    for command in [command for command in COMMANDS if "slurm" not in command]:
        checkout.run(*command.split())
