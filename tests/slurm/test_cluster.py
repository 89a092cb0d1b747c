"""The miniature study through a real SLURM, as docs/cluster.md says; and what a user finds there afterwards."""

import re

import pytest
from checkout import Checkout
from cluster import Cluster
from page import Followed

pytestmark = pytest.mark.slurm

FIELDS = ("JobIDRaw", "State", "Partition", "Account", "ReqTRES", "TimelimitRaw", "Comment")
ON_GPUS = {"pretrain", "fim_shard", "finetune_baseline", "finetune_anchored"}
ON_CPUS = {"prepare", "fim_merge", "evaluate", "tables"}


def accounted(cluster: Cluster, followed: Followed) -> list[dict[str, str]]:
    """The jobs of a session, as accounting knows them."""
    runs = {name for _, text in followed.session for name in re.findall(r"SLURM run ID: (\S+)", text)}
    wanted = ("--starttime=now-1days", f"--format={','.join(FIELDS)}", f"--name={','.join(runs)}")
    done = cluster.run("sacct", "--allocations", "--noheader", "--parsable2", *wanted)
    jobs = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in done.stdout.splitlines()]
    assert jobs
    return jobs


def rule(job: dict[str, str]) -> str:
    return job["Comment"].removeprefix("rule_").split("_wildcards_")[0]


def test_every_step_is_a_job(cluster: Cluster, followed: Followed):
    jobs = accounted(cluster, followed)
    steps = {"prepare": 2, "pretrain": 1, "fim_shard": 2, "fim_merge": 1, "finetune_baseline": 1, "finetune_anchored": 2}
    assert sorted(map(rule, jobs)) == sorted([name for name, count in steps.items() for _ in range(count)] + ["evaluate", "tables"])
    assert {job["State"] for job in jobs} == {"COMPLETED"}


def test_jobs_have_the_partition_the_account_and_the_gpu_of_the_edits(cluster: Cluster, followed: Followed):
    for job in accounted(cluster, followed):
        assert job["Account"] == "lab"
        assert job["Partition"] == ("gpu" if rule(job) in ON_GPUS else "cpu"), job
        assert ("gres/gpu:a100=1" in job["ReqTRES"]) == (rule(job) in ON_GPUS), job


def test_jobs_at_the_same_time_have_gpus_of_their_own(followed: Followed):
    most = 0
    for moment in followed.moments:
        lent = [(node, device) for node, devices in moment.values() for device in devices.split(",") if device]
        assert len(lent) == len(set(lent)), moment
        most = max(most, len(lent))
    assert most >= 2


def test_a_look_lists_the_steps_and_submits_nothing(followed: Followed):
    printed = followed.printed("profiles/slurm --dry-run\n")
    assert re.search(r"^total +12$", printed, re.MULTILINE)
    assert "has been submitted" not in printed


def test_the_cluster_says_what_it_offers(followed: Followed):
    printed = followed.printed("sinfo")
    assert re.search(r"^gpu +10:00:00 +gpu:a100:2$", printed, re.MULTILINE)
    assert re.search(r"^ *lab *$", printed, re.MULTILINE)


def test_a_second_run_has_nothing_to_do(followed: Followed):
    first, second = (text for block, text in followed.session if block == "snakemake --workflow-profile profiles/slurm\n")
    assert "has been submitted" in first
    for text in (second, followed.printed("slurm fims")):
        assert "Nothing to be done" in text
        assert "has been submitted" not in text
    assert followed.checkout.would_run("snakemake") == set()


def test_another_plan_is_listed(followed: Followed):
    assert re.search(r"^finetune_anchored +336$", followed.printed("plans/paper.json"), re.MULTILINE)


def test_states_and_logs_are_where_the_page_says(followed: Followed):
    assert "rule_finetune_anchored_wildcards_res-resnet-ewc-2" in followed.printed("sacct --starttime")
    assert "res-resnet-ewc-2.log" in followed.printed("ls logs/finetune")


def test_a_group_computes_its_shards_on_one_gpu(cluster: Cluster, bundled: Followed):
    (group,) = (job for job in accounted(cluster, bundled) if rule(job) == "shards_fim_shard")
    assert group["State"] == "COMPLETED"
    assert "gres/gpu:a100=1" in group["ReqTRES"]
    assert group["TimelimitRaw"] == str(2 * 120)


def test_a_job_that_ran_out_of_memory_gets_more(cluster: Cluster, bundled: Followed):
    first, second = (job for job in accounted(cluster, bundled) if rule(job) == "finetune_baseline")
    assert "mem=350M" in first["ReqTRES"]
    assert first["State"] in ("FAILED", "OUT_OF_MEMORY")
    assert "mem=700M" in second["ReqTRES"]
    assert second["State"] == "COMPLETED"


def test_without_gpus_no_job_asks_for_one(cluster: Cluster, bundled: Followed):
    (job,) = (job for job in accounted(cluster, bundled) if rule(job) == "finetune_anchored")
    assert job["State"] == "COMPLETED"
    assert "gpu" not in job["ReqTRES"]


def test_results_do_not_depend_on_bundles_and_attempts(bundled: Followed, by_snakemake: Checkout):
    assert bundled.checkout.results() == by_snakemake.results()


def test_the_report_shows_every_job_of_its_run(bundled: Followed):
    (report,) = bundled.checkout.path.glob("efficiency_report_*.csv")
    header, *jobs = report.read_text().splitlines()
    assert "Memory Usage (%)" in header
    assert all("rule_finetune_baseline" in job for job in jobs)
