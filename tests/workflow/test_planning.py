"""Planning is linear in the jobs: counted, not timed, so that a busy machine is no failure."""

import cProfile
import json
import pstats
import re
import sys
from typing import Any

import pytest
import yaml
from checkout import HERE, REPOSITORY, Checkout, check_out

from anchored import graph
from anchored.errors import ConfigError
from anchored.graph import Graph
from anchored.plan.config import Config
from anchored.plan.expand import expand

SIZES = (40, 80, 160)
# Runs Snakemake in this process and writes how many functions were called into the file that stands first.
COUNT = """
import cProfile, pathlib, pstats, sys
from snakemake.cli import main
_, file, *arguments = sys.argv
sys.argv = ["snakemake", *arguments]
profile = cProfile.Profile()
try:
    profile.runcall(main)
finally:
    pathlib.Path(file).write_text(str(pstats.Stats(profile).total_calls))
"""


def configuration(jobs: int) -> dict[str, Any]:
    """The miniature study with so many jobs of a cell each."""
    config = yaml.safe_load((HERE / "mini.yaml").read_text())
    grid = [round(1e-2 * number, 6) for number in range(1, jobs // 4 + 1)]
    arms = {"erm": {"lr": grid}, "ewc": {"lr": [1e-3], "strength": grid}}
    config["experiments"]["res"] |= {"arms": arms, "replicates_per_job": 1}
    return config


def graph_of(jobs: int) -> Graph:
    return Graph(expand(Config.model_validate(configuration(jobs))))


def calls(function: Any) -> int:
    """How many functions a call calls."""
    profile = cProfile.Profile()
    profile.runcall(function)
    return pstats.Stats(profile).total_calls


@pytest.mark.parametrize("kind", ["datasets", "pretrained", "completed", "whole", "merged", "shards", "baseline", "anchored"])
def test_a_constraint_does_not_grow_with_the_jobs(kind: str):
    """Snakemake reads it again for every file of every job: 5,000 names in it took longer than all else."""
    assert graph_of(400).constraint(kind) == graph_of(40).constraint(kind)


def test_a_constraint_matches_the_names_of_its_map_only():
    demo = json.loads((REPOSITORY / "plan.json").read_text())
    for plan in (demo, json.loads((REPOSITORY / "plans/paper.json").read_text()), expand(Config.model_validate(configuration(40)))):
        kinds = graph._MAPS
        for kind in kinds:
            pattern = Graph(plan).constraint(kind)
            found = {(other, name) for other in kinds for name in plan[other] if re.fullmatch(pattern, name)}
            rivals = {(other, name) for other, name in found if other != kind and name not in plan[kind]}
            assert {name for other, name in found if other == kind} == set(plan[kind])
            assert rivals == set()


def test_names_that_two_maps_share_are_spelled_out():
    """A FIM measured whole may be called like the copies of one in shards."""
    plan = {kind: {} for kind in graph._MAPS} | {"whole": {"fim-1": {}, "fim-2": {}}, "merged": {"fim-3": {}, "other": {}}}
    assert Graph(plan).constraint("whole") == "fim-1|fim-2"
    assert Graph(plan).constraint("merged") == "fim-3|other"
    assert Graph(plan).constraint("shards") == "(?!)"


def test_a_job_that_the_plan_lacks_is_named():
    """The constraint lets other numbers pass, so the inputs have to say it."""
    with pytest.raises(ConfigError, match="'res-resnet-erm-99' is not among the baseline of the plan"):
        graph_of(40).inputs("baseline")(["res-resnet-erm-99"])


@pytest.mark.parametrize("kind", ["baseline", "anchored"])
def test_a_job_lists_its_data_and_no_code(kind: str):
    """The files of its code were 85 of 88 inputs of every job."""
    made = graph_of(40)
    for job in made.plan[kind]:
        inputs = made.inputs(kind)([job])
        assert len(inputs) <= 3
        assert all(path.startswith("results/") for path in inputs)


@pytest.mark.parametrize(
    "work",
    [
        lambda made: [made.inputs(kind)([job]) for kind in ("baseline", "anchored") for job in made.plan[kind]],
        lambda made: made.inputs("evaluate")([]),
        lambda made: made.targets("baseline", "anchored")([]),
        lambda made: made.constraint("baseline"),
    ],
    ids=["inputs of jobs", "inputs of evaluate", "targets", "constraint"],
)
def test_functions_of_the_rules_are_linear(work: Any):
    made = [graph_of(size) for size in SIZES]
    for each in made:
        work(each)  # what is remembered is there the second time
    small, middle, large = (calls(lambda each=each: work(each)) for each in made)
    assert large - middle <= 2.1 * (middle - small)


def test_a_function_of_a_job_does_not_look_at_the_others():
    """A job on a cluster builds its own part of the graph only."""
    few, many = graph_of(40), graph_of(400)
    for one in ("inputs", "entry", "priority"):
        asked = [lambda made=made, one=one: getattr(made, one)("anchored")(["res-resnet-ewc-3"]) for made in (few, many)]
        for ask in asked:
            ask()  # what is remembered is there the second time
        assert calls(asked[0]) == calls(asked[1])


def snakemake_calls(checkout: Checkout, *arguments: str) -> int:
    """How many functions a dry run calls."""
    checkout.run(sys.executable, "-c", COUNT, "calls.txt", "--dry-run", "--quiet", "rules", *arguments)
    return int((checkout.path / "calls.txt").read_text())


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with a plan of every size."""
    made = check_out(tmp_path_factory.mktemp("planned") / "checkout", yaml.safe_dump(configuration(SIZES[0])))
    for size in SIZES:
        (made.path / f"plan-{size}.json").write_text(json.dumps(graph_of(size).plan))
    return made


@pytest.mark.workflow
def test_snakemake_takes_the_same_for_every_job(planned: Checkout):
    """Twice as many more jobs may call twice as many functions more, and 5 %."""
    small, middle, large = (snakemake_calls(planned, "--config", f"plan=plan-{size}.json") for size in SIZES)
    assert large - middle <= 2.1 * (middle - small), (small, middle, large)


@pytest.mark.workflow
def test_a_job_on_a_node_does_not_plan_the_others(planned: Checkout):
    """Every job starts Snakemake again; it needs the plan's file and its own entry."""
    for path in graph_of(40).inputs("anchored")(["res-resnet-ewc-3"]):
        (planned.path / path).parent.mkdir(parents=True, exist_ok=True)
        (planned.path / path).touch()
    job = ("--target-jobs", "finetune_anchored:job=res-resnet-ewc-3", "--allowed-rules", "finetune_anchored", "--force", "--nolock")
    few, many = (snakemake_calls(planned, *job, "--config", f"plan=plan-{size}.json") for size in (SIZES[0], SIZES[-1]))
    assert many - few <= 20 * (SIZES[-1] - SIZES[0]), (few, many)
