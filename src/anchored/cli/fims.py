"""What can be done with a FIM that was measured, or with an architecture before one is."""

from pathlib import Path
from typing import Annotated

import typer

from anchored.cli.frame import PLAN, Force, PlanFile, Root, run_step
from anchored.paths import Paths
from anchored.terminal import reported

app = typer.Typer()


@app.command("fim-check")
def fim_check(
    models: Annotated[list[str], typer.Argument(metavar="TIMM-NAME...", help="Models of timm, by name.")],
    fallback: Annotated[str, typer.Option("--fallback", help="`loop`: measure models without full coverage by the loop.")] = "",
    images: Annotated[int, typer.Option("--images", help="Images in the batch, each with two views.")] = 3,
) -> None:
    """Say whether the batched Fisher is exact for an architecture, by comparing it with one image a time.

    Reads nothing: parameters are random, in float64, at the smallest input size. Writes a table to the terminal; exit code 4 if a
    model is not exact.
    """
    with reported(None):
        from anchored.fisher.check import check_models, check_table, require_exact

        found = list(check_models(models, images=images, fallback=fallback))
        print(check_table(found))
        require_exact(found)


@app.command("fim-stats")
def fim_stats(
    fims: Annotated[list[str], typer.Argument(metavar="FIM...", help="Identities of FIMs in the plan, files or release folders.")],
    split_half: Annotated[bool, typer.Option("--split-half", help="Measure again in blocks: how many images are enough?")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the results [default: results/fim-stats].")] = None,
    plan: PlanFile = PLAN,
    root: Root = Path("."),
    force: Force = False,
) -> None:
    """Tell what FIMs look like, how alike they are, and how many images are enough.

    Reads results/fim/FIM, with --split-half also results/backbones and results/data/BANK. Writes tables, figures and numbers
    to results/fim-stats/{stats.md, stats.csv, stats.json, ...}, and prints the tables.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.diagnostics.step import fim_stats as step

        print(step(entries, fims, paths, halves=split_half, out=out, force=force), end="")

    run_step("fim-stats", "-".join(fims)[:80], plan, root, run)


@app.command("fim-release")
def fim_release(
    fim: Annotated[str, typer.Argument(help="Identity of a FIM in the plan.")],
    folder: Annotated[Path, typer.Argument(help="Where to: a new or empty folder, or an earlier release.")],
    licence: Annotated[str | None, typer.Option("--licence", metavar="SPDX", help="Licence, such as CC-BY-4.0.")] = None,
    with_backbone: Annotated[bool, typer.Option("--with-backbone", help="Also copy the weights at the anchor.")] = False,
    plan: PlanFile = PLAN,
    root: Root = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier, different release.")] = False,
) -> None:
    """Publish a FIM as a folder that says what it is, checks itself, and loads with five lines.

    Reads results/fim/FIM and results/backbones/BACKBONE. Writes FOLDER/{fim.safetensors, spectrum.png, spectrum.svg,
    metadata.json, README.md, SHA256SUMS}, LICENSE with --licence, backbone.safetensors with --with-backbone.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.release.step import fim_release as step

        step(entries, fim, folder, paths, licence=licence, with_backbone=with_backbone, force=force)

    run_step("fim-release", fim, plan, root, run)


@app.command()
def fim_transfer(
    fims: Annotated[list[str], typer.Argument(metavar="FIM...", help="Identities of FIMs in the plan; several are pooled.")],
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Seeds of each FIM, instead of the settings'.")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", help="YAML file with other settings than the defaults.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the summary.")] = None,
    plan: PlanFile = PLAN,
    root: Root = Path("."),
    force: Force = False,
) -> None:
    """Check a FIM by reverse transfer: fine-tune on something unrelated, then measure the SSL task.

    Reads results/fim/FIM and the backbone and datasets behind it. Writes results/transfer/FIM/{cells.parquet, record.json} and,
    there or for several FIMs in results/transfer/pooled, {summary.md, summary.csv, reverse-transfer.svg, reverse-transfer.png}.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.transfer.settings import read_settings
        from anchored.transfer.step import fim_transfer as step

        chosen = read_settings(settings)
        step(entries, fims, paths, chosen.model_copy(update={"seeds": seeds}) if seeds else chosen, out=out, force=force)

    run_step("fim-transfer", "-".join(fims), plan, root, run)
