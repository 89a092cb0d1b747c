"""profiles/slurm and docs/cluster.md without a cluster."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checkout import HERE, REPOSITORY, Checkout, check_out
from page import PAGE, PROFILE, commands, edit_profile

RULES = {
    match
    for file in (REPOSITORY / "workflow" / "rules").glob("*.smk")
    for match in re.findall(r"^rule (\w+):", file.read_text(), re.MULTILINE)
}
# Of SLURM, or of one cluster. Rules may say `gpu`: what they ask for there is 0 or 1 on any machine.
CLUSTER_FACTS = re.compile(r"slurm|partition|account|mem_mb|runtime|gres|gpu_model|qos|retries|sbatch|srun", re.IGNORECASE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    made = check_out(tmp_path_factory.mktemp("profile") / "checkout", (HERE / "mini.yaml").read_text())
    edit_profile(made)
    return made


def profile(folder: str) -> dict:
    return yaml.safe_load((REPOSITORY / "profiles" / folder / "profile.yaml").read_text())


def test_every_entry_says_why():
    """A user reads the file from top to bottom; entries follow their comment at once."""
    before = ""
    for line in (REPOSITORY / PROFILE).read_text().splitlines():
        entry = line.strip()
        if entry and not entry.startswith(("#", "- ")):
            assert before.startswith("#"), f"{entry} has no comment"
        before = entry


def test_cluster_facts_stand_in_the_profile_only():
    for file in (REPOSITORY / "Snakefile", *(REPOSITORY / "workflow" / "rules").glob("*.smk")):
        code = "\n".join(line for line in file.read_text().splitlines() if not line.lstrip().startswith("#"))
        assert CLUSTER_FACTS.findall(code) == [], file.name


def test_every_step_that_may_use_a_gpu_asks_for_one():
    """The machine that submits has no GPU, so the rules' own request is 0 there."""
    asking = {
        rule
        for file in (REPOSITORY / "workflow" / "rules").glob("*.smk")
        for rule, body in re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", file.read_text(), re.MULTILINE | re.DOTALL)
        if "gpu=GPUS" in body
    }
    given = profile("slurm")["set-resources"]
    assert {rule for rule, resources in given.items() if resources.get("gpu")} == asking
    assert given.keys() <= RULES


def test_what_holds_on_any_machine_is_as_in_the_default_profile():
    """Snakemake takes one workflow profile; jobs on the nodes take the default one."""
    default, slurm = profile("default"), profile("slurm")
    assert {key: slurm[key] for key in default} == default


def test_memory_and_time_grow_with_the_attempts():
    slurm = profile("slurm")
    for resources in (slurm["default-resources"], *slurm["set-resources"].values()):
        for key in ("mem_mb", "runtime"):
            amounts = [eval(str(resources[key]), {"attempt": attempt}) for attempt in (1, 2, 3)]
            assert amounts == [amounts[0], 2 * amounts[0], 3 * amounts[0]]
            assert amounts[0] >= {"mem_mb": 1000, "runtime": 10}[key]
    assert slurm["retries"] == 2


@pytest.mark.workflow
def test_any_name_may_stand_between_the_quotes(checkout: Checkout, tmp_path: Path):
    """Without them `all` would be a function of Python, and a name with a hyphen a subtraction."""
    copy = checkout.copy(tmp_path / "copy")
    copy.edit(str(PROFILE), "\"'cpu'\"", "\"'all'\"")
    copy.edit(str(PROFILE), "\"'lab'\"", "\"'24-lab'\"")
    called = tmp_path / "called"
    programs = {"sacctmgr": "echo 24-lab", "sbatch": f'echo "$@" >> {called}; echo not today >&2; exit 1'}
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SNAKEMAKE_PROFILE": str(Path(__file__).parent / "quick")}
    ready = dataclasses.replace(copy, variables=variables)
    done = ready.run("snakemake", "--workflow-profile", PROFILE.parent, "--retries", "0", "--", "data", check=False)
    assert "not today" in done.stderr
    assert re.search(r" -A 24-lab +-p all -t 60 --mem 8000 --requeue ", called.read_text()), called.read_text()[:500]


@pytest.mark.workflow
def test_a_dry_run_needs_no_slurm(checkout: Checkout, tmp_path: Path):
    """Whoever writes the plan on a laptop looks at it there."""
    for program in ("bash", "sh", "which"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    snakemake = Path(sys.executable).with_name("snakemake")
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": str(checkout.path / "src")}
    done = subprocess.run(
        [snakemake, "--workflow-profile", PROFILE.parent, "--dry-run"],
        cwd=checkout.path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^total +12$", done.stdout + done.stderr, re.MULTILINE)


def test_the_page_has_three_edits_the_cost_of_a_job_and_links_that_exist():
    text = PAGE.read_text()
    assert len(commands()) >= 10
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
    block = re.search(r"<!-- overhead -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert block
    assert len(re.findall(r"^\| .*\d s \|$", block[1], re.MULTILINE)) == 4, "run `python benchmarks/slurm_overhead.py --write`"
    assert [number for number in (1, 2, 3) if f"EDIT {number}:" not in (REPOSITORY / PROFILE).read_text()] == []
