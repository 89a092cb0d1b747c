"""How cells are put into jobs: by configurations, and by replicates where a job of all would be too long."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from anchored.plan.config import Config
from anchored.plan.expand import expand


def plan_with(root: Path, **keys: int) -> dict[str, Any]:
    """The miniature plan with other settings of its experiment `res`: 2 configurations an arm, 2 replicates."""
    config = yaml.safe_load((root / "tests/mini.yaml").read_text())
    config["experiments"]["res"] |= {"replicates": 5, **keys}
    return expand(Config.model_validate(config))


@pytest.mark.parametrize(
    ("configurations", "replicates", "sizes"),
    [(2, 5, [10]), (1, 5, [5, 5]), (1, 1, [1] * 10), (2, 2, [4, 4, 2]), (1, 3, [3, 2, 3, 2]), (9, 9, [10])],
)
def test_jobs_hold_whole_blocks_of_configurations_and_replicates(root, configurations, replicates, sizes):
    """Counted by hand, in the order of the grid."""
    plan = plan_with(root, configurations_per_job=configurations, replicates_per_job=replicates)
    jobs = {name: job for name, job in plan["anchored"].items() if name.startswith("res-resnet-1-ewc-") and "shuffled" not in name}
    assert [len(job["cells"]) for job in jobs.values()] == sizes
    assert list(jobs) == [f"res-resnet-1-ewc-{number}" for number in range(1, len(sizes) + 1)]


def test_every_cell_is_in_one_job_and_none_depends_on_it(root):
    """A cell's entry, seed and identity are the same whatever job runs it."""
    whole, split = plan_with(root), plan_with(root, configurations_per_job=1, replicates_per_job=1)
    assert whole["cells"] == split["cells"]
    assert whole["experiments"] == split["experiments"]
    members = [cell for kind in ("baseline", "anchored") for job in split[kind].values() for cell in job["cells"]]
    assert sorted(members) == sorted(split["cells"])
