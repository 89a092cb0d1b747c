"""The steps of a plan, one command each: what the engines run."""

from pathlib import Path
from typing import Annotated

import typer

from anchored.cli.frame import PLAN, FimName, Force, PlanFile, Root, run_step
from anchored.errors import ConfigError
from anchored.paths import Paths
from anchored.plan.naming import shard_name

app = typer.Typer()


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="Identity of a dataset in the plan.")],
    plan: PlanFile = PLAN,
    root: Root = Path("."),
    force: Force = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the sources do not give what is stored.")] = False,
) -> None:
    """Build a packed dataset.

    Reads its entry of the plan and the images that it names. Writes results/data/DATASET/{images.npy, index.parquet,
    manifest.json, record.json}. With --check it reads all of these and writes nothing.
    """

    def run(paths: Paths, entries: dict) -> None:
        if check and force:
            raise ConfigError("prepare cannot do --force together with --check.", "run them one after the other.")
        if check:
            from anchored.store_check import check as compare

            print("\n".join(compare(entries, dataset, paths)))
            return
        from anchored.preparation.step import prepare as step

        step(entries, dataset, paths, force=force)

    run_step("prepare", dataset, plan, root, run)


@app.command()
def pretrain(
    backbone: Annotated[str, typer.Argument(help="Identity of a backbone in the plan.")],
    plan: PlanFile = PLAN,
    root: Root = Path("."),
    force: Force = False,
) -> None:
    """Pre-train a backbone by self-supervision, or import its weights.

    Reads results/data/BANK. Writes results/backbones/BACKBONE/{model.safetensors, record.json}.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.pretrain import pretrain as step

        step(entries, backbone, paths, force=force)

    run_step("pretrain", backbone, plan, root, run)


@app.command()
def fim(
    fim: FimName,
    shard: Annotated[str | None, typer.Option("--shard", metavar="I/N", help="One range of the images, of the plan's N.")] = None,
    fallback: Annotated[str | None, typer.Option("--fallback", help="loop: where hooks lacks a rule, image by image.")] = None,
    plan: PlanFile = PLAN,
    root: Root = Path("."),
    force: Force = False,
) -> None:
    """Measure the diagonal Fisher information of a backbone, continuing a killed measurement.

    Reads results/backbones/BACKBONE and results/data/BANK. Writes results/fim/FIM/{fim.safetensors, record.json, card.md}; with
    --shard writes results/shards/SHARD/{sums.safetensors, record.json}, which fim-merge adds. Without it, all shards of a FIM
    are measured, one after the other, and merged.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.fisher.step import fim as step

        step(entries, fim, paths, shard=shard, fallback=fallback, force=force)

    # The log that the engines name, too.
    run_step("fim", shard_name(fim, shard.partition("/")[0]) if shard else fim, plan, root, run)


@app.command("fim-merge")
def fim_merge(fim: FimName, plan: PlanFile = PLAN, root: Root = Path("."), force: Force = False) -> None:
    """Add the shards of a FIM.

    Reads results/shards/*/sums.safetensors of this FIM. Writes results/fim/FIM/{fim.safetensors, record.json, card.md}.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.fisher.step import fim_merge as step

        step(entries, fim, paths, force=force)

    run_step("fim-merge", fim, plan, root, run)


@app.command()
def finetune(
    run: Annotated[str, typer.Argument(metavar="JOB-OR-CELL", help="Identity of a job or of a single cell in the plan.")],
    plan: PlanFile = PLAN,
    root: Root = Path("."),
    force: Force = False,
) -> None:
    """Fine-tune the cells of a job, continuing after the last whole epoch of a killed one.

    Reads results/data/DATASET, results/backbones/BACKBONE and, for anchored arms, results/fim/FIM. Writes
    results/runs/NAME/{predictions.parquet, history.parquet, models.safetensors, record.json}.
    """

    def step(paths: Paths, entries: dict) -> None:
        from anchored.finetune.step import finetune as step

        step(entries, run, paths, force=force)

    run_step("finetune", run, plan, root, step)


@app.command()
def evaluate(plan: PlanFile = PLAN, root: Root = Path("."), force: Force = False) -> None:
    """Compute metrics, selections and paired comparisons from the stored predictions of all runs.

    Reads results/runs/*/predictions.parquet of the plan. Writes results/metrics.{parquet,csv}, results/comparisons.parquet
    and results/selected.csv.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.evaluate.step import evaluate as step

        step(entries, paths, force=force)

    run_step("evaluate", "all", plan, root, run)


@app.command()
def tables(plan: PlanFile = PLAN, root: Root = Path("."), force: Force = False) -> None:
    """Write the tables, the figures and the report.

    Reads results/metrics.parquet, results/comparisons.parquet and results/fim. Writes results/tables, results/figures and
    results/report.html.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.report.step import tables as step

        step(entries, paths, force=force)

    run_step("tables", "all", plan, root, run)
