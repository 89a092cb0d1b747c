"""What is read from Snakemake's log: lines of a real one, from a cluster."""

from pathlib import Path

import pytest

from anchored.launcher.story import Story, runs_of

RUN = "e9ae840f-7720-48ad-909b-2cee059b8d94"

FAILED = """\
[Sat Nov 21 23:23:09 2026]
Error in rule finetune_anchored:
    message: SLURM-job '12' failed, SLURM status is: '{state}'. Reason: Unknown.For further error details see the log.
    jobid: 9
    input: results/fim/fim/fim.safetensors
    output: results/runs/ewc-2/predictions.parquet
    log: logs/finetune/ewc-2.log, {slurm_log} (check log file(s) for error details)
    shell:
        anchored finetune ewc-2
        (command exited with non-zero exit code)
    external_jobid: 12
Logfile logs/finetune/ewc-2.log:
================================================================================
a line
================================================================================
Logfile {slurm_log}:
================================================================================
SNAKEMAKE
=========
Error in rule finetune_anchored:
    jobid: 0
    log: logs/finetune/ewc-2.log (check log file(s) for error details)
Finished jobid: 9 (Rule: finetune_anchored)
================================================================================
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".snakemake" / "log").mkdir(parents=True)
    (tmp_path / "logs" / "finetune").mkdir(parents=True)
    return tmp_path


def told(folder: Path, text: str) -> Story:
    story = Story(folder)
    log = folder / ".snakemake" / "log" / "2026-11-21T231326.1.snakemake.log"
    log.write_text(f"Building DAG of jobs...\nSLURM run ID: {RUN}\n{text}")
    story.read()
    return story


def failed(folder: Path, state: str = "FAILED") -> str:
    return FAILED.format(state=state, slurm_log=folder / "slurm.log")


def test_it_knows_the_run_that_names_the_jobs(folder: Path):
    assert told(folder, "").run == RUN
    assert runs_of(folder) == {RUN}


def test_logs_of_earlier_runs_are_not_its_own(folder: Path):
    (folder / ".snakemake" / "log" / "2026-01-01T000000.1.snakemake.log").write_text("SLURM run ID: other\n")
    story = told(folder, "")
    assert story.run == RUN
    assert runs_of(folder) == {RUN, "other"}


def test_the_sentence_of_a_failed_step_comes_from_its_own_log(folder: Path):
    (folder / "logs" / "finetune" / "ewc-2.log").write_text(
        "Traceback (most recent call last):\nanchored.errors.InputError: fim.safetensors is truncated.\n  remove it.\n"
    )
    (failure,) = told(folder, failed(folder) + "Exiting\n").failures.values()
    assert (failure.rule, failure.log) == ("finetune_anchored", "logs/finetune/ewc-2.log")
    assert failure.why == "fim.safetensors is truncated."


def test_a_job_inside_a_printed_log_is_not_counted(folder: Path):
    """The printed log tells of "jobid: 0", and of the end of a job with the same number."""
    story = told(folder, failed(folder) + "Exiting\n")
    assert list(story.failures) == ["9"]
    assert story.finished == 0


def test_a_step_that_succeeded_in_the_end_did_not_fail(folder: Path):
    story = told(folder, failed(folder) + "Finished jobid: 9 (Rule: finetune_anchored)\n")
    assert story.failures == {}
    assert story.finished == 1


@pytest.mark.parametrize(
    ("state", "why", "advice"),
    [
        ("TIMEOUT", "it ran into its time limit", "`runtime`"),
        ("NODE_FAIL", "its node was lost", ""),
        ("CANCELLED", "somebody cancelled it", ""),
    ],
)
def test_what_slurm_did_to_a_job_is_the_reason(folder: Path, state: str, why: str, advice: str):
    (failure,) = told(folder, failed(folder, state) + "Exiting\n").failures.values()
    assert failure.why == why
    assert advice in failure.advice


def test_a_job_killed_for_memory_is_told_from_its_slurm_log(folder: Path):
    """Without cgroups its state is only FAILED."""
    (folder / "slurm.log").write_text("slurmstepd: error: StepId=47.0 exceeded memory limit (389 > 262), being killed\n")
    (failure,) = told(folder, failed(folder) + "Exiting\n").failures.values()
    assert failure.why == "it needed more memory than it had asked for"
    assert "`mem_mb`" in failure.advice


def test_half_a_line_is_read_when_it_is_whole(folder: Path):
    story = told(folder, "Finished job")
    with story.log.open("a") as stream:
        stream.write("id: 3 (Rule: prepare)\n")
    story.read()
    assert story.finished == 1
