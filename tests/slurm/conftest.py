"""The miniature study on a cluster, bundled."""

import shutil

import pytest
from page import PROFILE, Followed, command, follow


@pytest.fixture(scope="session")
def bundled(followed: Followed, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """A copy in which the FIM and one job were made again: its shards as a group; the job with too little memory at first, while
    Snakemake asks the controller for the jobs' states.
    """
    copy = followed.checkout.copy(tmp_path_factory.mktemp("bundled") / "checkout")
    for folder in ("shards", "fim", "runs/res-resnet-erm-1"):
        shutil.rmtree(copy.path / "results" / folder)
    session = [(block := command("--groups"), follow(copy, block))]
    copy.edit(str(PROFILE), "\n  finetune_baseline: *gpu\n", "\n  finetune_baseline: {mem_mb: attempt * 350, runtime: 30}\n")
    copy.edit(str(PROFILE), "\n# slurm-status-command: squeue\n", "\nslurm-status-command: squeue\n")
    session += [(block := command("--slurm-efficiency-report"), follow(copy, block))]
    return Followed(copy, session, [])
