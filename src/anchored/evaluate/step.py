"""`anchored evaluate`: reads every job's predictions, writes metrics, selections and comparisons. Computes nothing
itself.

Files are read twice, one after the other: once for the metrics of all epochs, once for the images of the picked models.
Memory therefore holds some jobs and one matrix of picks, whatever the size of the grid.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from anchored import files
from anchored.errors import InputError
from anchored.evaluate import records
from anchored.evaluate.audit import audit
from anchored.evaluate.compare import compare, stack
from anchored.evaluate.groups import Groups, read_groups
from anchored.evaluate.selection import find_rule, scopes, select, with_test_metrics
from anchored.evaluate.study import Study, read_study
from anchored.paths import Paths
from anchored.progress import progress
from anchored.record import planned_step

log = logging.getLogger("anchored")

_ROWS = 250_000
"""Predictions that are measured at once: those of some dozens of jobs, or of one that is larger."""


def evaluate(plan: Mapping[str, Any], paths: Paths, *, force: bool = False) -> None:
    """Writes results/metrics.parquet and .csv, results/selected.csv and results/comparisons.parquet.

    Raises:
        InputError: a cell of the plan has no predictions, a file holds a foreign cell or cannot be read, or cells of an
            experiment were tested on different images.
        ConfigError: the plan names an unknown selection rule.
    """
    with planned_step(dict(plan), "evaluate", "all", paths).run(force=force) as running:
        if running:
            study = read_study(plan)
            rows = _evaluate(study, paths)
            running.measure(cells=len(study.cells), rows=rows)


def _evaluate(study: Study, paths: Paths) -> int:
    """Writes the results; returns the number of rows of metrics."""
    rules = {name: [find_rule(rule) for rule in experiment.rules] for name, experiment in study.experiments.items()}
    groups = {
        dataset: load_groups(paths, dataset) for dataset in dict.fromkeys(c.dataset for c in study.cells.values())
    }
    described = _measure_all(study, groups, paths)
    for name in study.experiments:
        records.check_same_images(described, name)
    metrics = described.drop("images")

    picks = [
        select(metrics, experiment, rule, scope)
        for name, experiment in study.experiments.items()
        for rule in rules[name]
        for scope in scopes(experiment)
    ]
    selected = pl.concat(picks)
    compared = []
    for name, experiment in study.experiments.items():
        own = selected.filter(pl.col("experiment") == name)
        models = stack(_read_picks(own, study, paths), groups[experiment.dataset].train_sizes)
        compared.append(compare(own, models, experiment, seed=study.seed))

    # DVC's stage `tables` names the folder of FIMs, since it cannot list them: a plan without any has an empty one.
    (paths.results / "fim").mkdir(parents=True, exist_ok=True)
    files.write_parquet(paths.metrics, metrics)
    files.write_bytes(paths.metrics_csv, metrics.write_csv().encode())
    files.write_bytes(paths.selected, with_test_metrics(selected, metrics).write_csv().encode())
    files.write_parquet(paths.comparisons, pl.concat(compared))
    log.info("evaluated %d cells, %d rows of metrics: %s", len(study.cells), len(metrics), paths.metrics)
    return len(metrics)


def load_groups(paths: Paths, dataset: str) -> Groups:
    """The groups in the data set's manifest."""
    command = f"anchored prepare {dataset}"
    return read_groups(files.read_json(paths.data(dataset) / "manifest.json", made_by=command), dataset)


def read_predictions(path: Path, job: str) -> pl.DataFrame:
    """The columns of a predictions file that evaluation needs.

    Raises:
        InputError: the file is cut short, no parquet file, or lacks a column.
    """
    repair = f"remove {path.parent} and run `anchored finetune {job}`."
    try:
        return pl.read_parquet(path, columns=list(records.PREDICTION_COLUMNS))
    except pl.exceptions.ColumnNotFoundError as error:
        raise InputError(f"{path} lacks a column of predictions: {_first_line(error)}.", repair) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"{path} cannot be read, it is damaged or was cut short: {_first_line(error)}.", repair
        ) from error


def _measure_all(study: Study, groups: Mapping[str, Groups], paths: Paths) -> pl.DataFrame:
    jobs = study.jobs()
    found: dict[str, list[str] | None] = {}
    measured = {dataset: _Measured(groups[dataset].train_sizes) for dataset in groups}
    with progress("evaluate", len(jobs)) as advance:
        for job in jobs:
            path = paths.run(job) / "predictions.parquet"
            if not path.exists():
                found[job] = None
                continue
            predictions = read_predictions(path, job)
            found[job] = predictions["cell"].unique().sort().to_list()
            for dataset, names in _by_dataset(study, found[job] or ()).items():
                alone = len(names) == len(found[job] or ())
                measured[dataset].add(str(path), predictions if alone else predictions.filter(pl.col("cell").is_in(names)))
            advance(note=job)
    parts = [part for each in measured.values() for part in each.finish()]
    outcome = audit(jobs, found)
    outcome.require_no_foreign()
    outcome.require_complete()
    return records.describe(pl.concat(parts, how="diagonal"), study)


class _Measured:
    """The metrics of the files of a dataset, measured as soon as enough rows have come.

    Args:
        train_sizes: of the dataset.
    """

    def __init__(self, train_sizes: Sequence[int]) -> None:
        self._train_sizes = train_sizes
        self._waiting: list[tuple[str, pl.DataFrame]] = []
        self._parts: list[pl.DataFrame] = []

    def add(self, source: str, predictions: pl.DataFrame) -> None:
        """Adds the predictions of a file."""
        if self._waiting and self._waiting[0][1].schema != predictions.schema:
            self.finish()
        self._waiting.append((source, predictions))
        if sum(len(frame) for _, frame in self._waiting) >= _ROWS:
            self.finish()

    def finish(self) -> list[pl.DataFrame]:
        """The metrics of all files so far."""
        if self._waiting:
            self._parts.append(records.measure_together(self._waiting, self._train_sizes))
            self._waiting = []
        return self._parts


def _by_dataset(study: Study, cells: Iterable[str]) -> dict[str, list[str]]:
    """The planned ones of `cells` by data set; foreign cells are left to the audit."""
    grouped: dict[str, list[str]] = {}
    for name in cells:
        if name in study.cells:
            grouped.setdefault(study.cells[name].dataset, []).append(name)
    return grouped


def _read_picks(picks: pl.DataFrame, study: Study, paths: Paths) -> pl.DataFrame:
    wanted = picks.select("cell", "epoch").unique()
    jobs = dict.fromkeys(study.cells[name].job for name in wanted["cell"].sort())
    tests = []
    for job in jobs:
        predictions = read_predictions(paths.run(job) / "predictions.parquet", job)
        tests.append(predictions.filter(pl.col("split") == "test").join(wanted, on=["cell", "epoch"], how="semi"))
    return pl.concat(tests)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
