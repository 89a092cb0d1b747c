"""`anchored tables`: reads what `anchored evaluate` wrote, writes tables, figures and the page. Computes nothing itself."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import safetensors
from safetensors.numpy import load_file

from anchored import files
from anchored.errors import InputError
from anchored.evaluate.selection import TUNED
from anchored.evaluate.step import load_groups
from anchored.evaluate.study import Experiment, Study, read_study
from anchored.paths import Paths
from anchored.record import planned_step
from anchored.report import figures, html, table
from anchored.report.compose import Drawable, figure_rule, figures_of, picks_of, tables_of
from anchored.report.figure_data import strength_curves
from anchored.report.headline import headline, strength_points
from anchored.report.text import rule_name

log = logging.getLogger("anchored")

_FORMS = {"md": table.markdown, "tex": table.latex, "csv": table.csv}


def tables(plan: Mapping[str, Any], paths: Paths, *, force: bool = False) -> None:
    """Writes results/tables, results/figures and results/report.html; removes what an earlier plan left in the two
    folders.

    Training histories and records are read where they exist, for the page only.

    Raises:
        InputError: an evaluated result, a data manifest or a Fisher file is missing or cannot be read.
    """
    with planned_step(dict(plan), "tables", "all", paths).run(force=force) as running:
        if running:
            _tables(plan, read_study(plan), paths)


def _tables(plan: Mapping[str, Any], study: Study, paths: Paths) -> None:
    metrics, comparisons = _read_result(paths.metrics), _read_result(paths.comparisons)
    history = _histories(study, paths)
    sections, written = [], {paths.tables / "README.md"}
    headlines: dict[str, Any] = {}
    points: list[dict[str, Any]] = []
    for experiment in study.experiments.values():
        groups = load_groups(paths, experiment.dataset)
        picks = picks_of(metrics, experiment)
        made = tables_of(picks, comparisons.filter(pl.col("experiment") == experiment.name), experiment, groups)
        fishers = _fishers(plan, experiment, study, paths)
        drawables = figures_of(picks, metrics, fishers, experiment=experiment, groups=groups)
        written |= {path for one in made for path in _write_table(paths, one)}
        headlines[experiment.name] = headline(picks, experiment)
        points += strength_points(strength_curves(metrics, experiment, figure_rule(experiment)), experiment)
        drawings = []
        for drawable in drawables:
            svg, png = figures.draw(drawable.make)
            written |= set(_write_figure(paths, drawable, svg, png))
            drawings.append(html.Drawing(drawable.name, drawable.caption, html.inline_svg(svg.decode(), drawable.name)))
        rule = figure_rule(experiment)
        own = picks.filter(pl.col("rule") == rule.name, pl.col("scope") == TUNED)
        training = html.training_grid(own, history, rule_name(rule.name))
        sections.append(
            html.Section(experiment.name, experiment.title, experiment.note, tuple(drawings), tuple(made), training)
        )

    listed = [(one.name, one.title) for section in sections for one in section.tables]
    drawn = [(f"../figures/{one.name}.svg", one.caption) for section in sections for one in section.figures]
    files.write_json(paths.tables / "metrics.json", headlines)
    files.write_json(paths.tables / "strength.json", points)
    files.write_text(paths.tables / "README.md", table.index(listed, drawn))
    for folder in (paths.tables, paths.figures):
        _remove_others(folder, written)
    page = html.page(
        title=f"anchored: {study.name}",
        plan_name=study.name,
        plan_digest=files.value_digest(dict(plan)),
        sections=sections,
        provenance=html.provenance_grid(dict(_records(study, paths))),
    )
    files.write_text(paths.report, page)
    log.info("wrote %d tables and %d figures: %s", len(listed), len(drawn), paths.report)


def _read_result(path: Path) -> pl.DataFrame:
    if not path.exists():
        raise InputError(f"{path} is missing.", "run `anchored evaluate`.")
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"{path} cannot be read, it is damaged or was cut short.", "run `anchored evaluate`."
        ) from error


def _fishers(
    plan: Mapping[str, Any], experiment: Experiment, study: Study, paths: Paths
) -> dict[str, dict[str, npt.NDArray[np.floating]]]:
    """The FIMs that cells of the experiment use, in the plan's order."""
    used = {plan["cells"][cell.name].get("fim") for cell in study.cells_of(experiment.name)}
    return {fim: _read_fisher(paths.fim(fim) / "fim.safetensors", fim) for fim in plan.get("fims", {}) if fim in used}


def _read_fisher(path: Path, fim: str) -> dict[str, npt.NDArray[np.floating]]:
    if not path.exists():
        raise InputError(f"{path} is missing.", f"run `anchored fim {fim}`.")
    try:
        return dict(load_file(path))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read, it is damaged or was cut short: {error}.",
            f"remove {path.parent} and run `anchored fim {fim}`.",
        ) from error


def _histories(study: Study, paths: Paths) -> pl.DataFrame:
    """All training histories that exist, columns that only some have filled with null."""
    found = []
    for job in study.jobs():
        path = paths.run(job) / "history.parquet"
        try:
            found.append(pl.read_parquet(path))
        except (pl.exceptions.PolarsError, OSError) as error:
            log.warning("%s is left out of the report: %s", path, (str(error).splitlines() or ["unreadable"])[0])
    return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()


def _records(study: Study, paths: Paths) -> Iterator[tuple[str, dict[str, Any]]]:
    for job in study.jobs():
        path = paths.run(job) / "record.json"
        try:
            yield job, json.loads(path.read_text())
        except (OSError, ValueError):
            log.warning("%s is missing or damaged; the report does without it", path)


def _write_table(paths: Paths, one: table.Table) -> list[Path]:
    written = []
    for suffix, form in _FORMS.items():
        written.append(paths.tables / f"{one.name}.{suffix}")
        files.write_text(written[-1], form(one))
    return written


def _write_figure(paths: Paths, drawable: Drawable, svg: bytes, png: bytes) -> list[Path]:
    written = [paths.figures / f"{drawable.name}.svg", paths.figures / f"{drawable.name}.png"]
    for path, data in zip(written, (svg, png), strict=True):
        files.write_bytes(path, data)
    return written


def _remove_others(folder: Path, written: set[Path]) -> None:
    """Removes generated files of an earlier plan, which would look like results of this one."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in {".md", ".tex", ".csv", ".svg", ".png"} and path not in written:
            path.unlink()
