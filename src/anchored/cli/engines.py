"""Snakemake and DVC over the steps."""

from pathlib import Path
from typing import Annotated

import typer

from anchored.cli.frame import PLAN, PlanFile, Root, run_step
from anchored.paths import Paths
from anchored.terminal import reported

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


@app.command(context_settings={"ignore_unknown_options": True})
def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET...] [-- OPTION...]", help="Targets (all, fims, runs, ...), and options for Snakemake."),
    ] = None,
    cores: Annotated[int | None, typer.Option("--cores", min=1, help="[default: all, or what the profile says]")] = None,
    profile: Annotated[str, typer.Option("--profile", metavar="NAME", help="profiles/NAME, such as slurm.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel jobs of a run that broke off; else wait for them.")] = False,
    stall: Annotated[float, typer.Option("--stall", min=0.1, help="Minutes without a word or a job that count as hanging.")] = 10.0,
    restarts: Annotated[int, typer.Option("--restarts", min=0, help="How often to continue after Snakemake broke down.")] = 3,
    plan: PlanFile = PLAN,
    root: Root = Path("."),
) -> None:
    """Run Snakemake and watch it: continue after a breakdown, and say at the end what failed.

    Reads Snakefile, the plan and profiles/NAME. Writes what the steps write, work/run.json and logs/run/snakemake.log. Everything
    that it does can be typed without it. Exit code 1 if steps failed.
    """
    paths = Paths(root)
    with reported(paths.log("run", "snakemake")):
        from anchored.launcher.launch import Settings, launch

        settings = Settings(tuple(words or ()), plan if plan != PLAN else None, profile, cores, dry_run, cancel, stall, restarts)
        launch(settings, paths)


@app.command()
def doctor(
    plan: PlanFile = PLAN,
    root: Root = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at this checkout and this machine: what is missing to run the plan, and which pitfalls are there.

    Reads the plan, the locks of packages and engines, and every result of the plan. Writes nothing but probes in work/, which it
    removes. Prints a line a check: ok, warning or error, and what to do. Exit code 0 without errors, 2 where only the plan or the
    configuration is wrong, else 5.
    """
    with reported(None):
        from anchored.doctor.command import as_json as json_text
        from anchored.doctor.command import as_text, exit_code
        from anchored.doctor.command import doctor as look

        found = look(plan, Paths(root))
        print(json_text(found) if as_json else as_text(found), end="")
    if code := exit_code(found):
        raise typer.Exit(code)
