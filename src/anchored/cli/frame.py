"""What commands share: options, defaults, and the frame around a step."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from anchored.paths import Paths
from anchored.terminal import file_name, reported

PlanFile = Annotated[Path, typer.Option("--plan", help="The compiled plan.")]
Root = Annotated[Path, typer.Option("--root", help="Folder that holds results/, work/ and logs/.")]
Force = Annotated[bool, typer.Option("--force", help="Compute again even if the result is up to date.")]
FimName = Annotated[str, typer.Argument(help="Identity of a FIM in the plan.")]
ConfigFile = Annotated[Path, typer.Option("--config", help="The configuration.")]

PLAN = Path("plan.json")
CONFIG = Path("config/demo.yaml")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def run_step(step: str, name: str, plan: Path, root: Path, work: Callable[[Paths, dict], None]) -> None:
    """Runs `work` with the plan loaded, its number of threads set, and the step's log file open."""
    paths = Paths(root)
    with reported(paths.log(step, file_name(name))):
        from anchored.image import image
        from anchored.plan.load import load_plan

        if image():
            # In an image the working folder is the home, and matplotlib's lists of fonts are nothing of a study.
            os.environ.setdefault("MPLCONFIGDIR", str(paths.work("matplotlib").resolve()))
        entries = load_plan(plan)
        for variable in _THREAD_VARIABLES:
            os.environ[variable] = str(entries["threads"])
        work(paths, entries)
