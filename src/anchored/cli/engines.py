"""Snakemake and DVC over the steps."""

from pathlib import Path
from typing import Annotated

import typer

from anchored.cli.frame import PLAN, PlanFile, Root, run_step
from anchored.paths import Paths

app = typer.Typer()


@app.command()
def adopt(
    source: Annotated[str, typer.Option("--from", help="The engine that made the results: snakemake or dvc.")],
    plan: PlanFile = PLAN,
    root: Root = Path("."),
) -> None:
    """Hand a finished checkout from one engine to the other, so that it finds nothing to do.

    One checkout is driven by one engine at a time. Reads every output of the plan; writes the other engine's bookkeeping.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.adopt import adopt as step

        step(source, entries, plan, paths)

    run_step("adopt", source, plan, root, run)
