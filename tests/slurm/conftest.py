"""The miniature study on a cluster, bundled."""

import shutil

import pytest
from page import PROFILE, Followed, command, follow


@pytest.fixture(scope="session")
def bundled(followed: Followed, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """A copy in which the FIM and two jobs were made again: its shards as a group; a job with too little memory at first, while
    Snakemake asks the controller for the jobs' states; and one without a GPU, as on a cluster that has none.
    """
    copy = followed.checkout.copy(tmp_path_factory.mktemp("bundled") / "checkout")
    for folder in ("shards", "fim", "runs/res-resnet-erm-1"):
        shutil.rmtree(copy.path / "results" / folder)
    session = [(block := command("--groups"), follow(copy, block))]
    copy.edit(str(PROFILE), "\n  finetune_baseline: *gpu\n", "\n  finetune_baseline: {mem_mb: attempt * 350, runtime: 30}\n")
    copy.edit(str(PROFILE), "\n# slurm-status-command: squeue\n", "\nslurm-status-command: squeue\n")
    session += [(block := command("--slurm-efficiency-report"), follow(copy, block))]
    shutil.rmtree(copy.path / "results" / "runs" / "res-resnet-ewc-2")
    copy.edit(str(PROFILE), "\n    gpu: 1\n", "\n    gpu: 0\n")
    copy.edit(str(PROFILE), "\n    gpu_model: \"'a100'\"\n", "\n")
    session += [(block := "snakemake --workflow-profile profiles/slurm runs\n", follow(copy, block))]
    return Followed(copy, session, [])
