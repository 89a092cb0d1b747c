"""`anchored fim-stats`: reads FIMs, writes tables, figures and numbers about them. With --split-half it measures again, once.

Its record has no time in it: the same FIMs give the same bytes.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from anchored import __version__
from anchored.device import choose_device, limit_threads
from anchored.diagnostics import figures, tables
from anchored.diagnostics.correlation import Sampled, compare
from anchored.diagnostics.noise import SplitHalf, split_half
from anchored.diagnostics.summary import Summary, masses, summarise
from anchored.errors import ConfigError, InputError
from anchored.files import file_digest, read_json, value_digest, write_bytes, write_json
from anchored.fisher import DiagonalFisher, load_fisher
from anchored.fisher.errors import ForeignFisher
from anchored.fisher.folder import FIM
from anchored.fisher.measurement import Measurement
from anchored.locks import exclusive
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.progress import progress
from anchored.report.figures import draw, fisher_figure
from anchored.report.table import Table, csv, markdown
from anchored.steps import PACKAGE

log = logging.getLogger("anchored")

_CODE = ("diagnostics", "fisher", "report/figures.py", "report/figure_data.py", "report/table.py", "report/text.py")
_CODE_OF_HALVES = ("data", "backbones", "objectives")
_OWN = {".md", ".csv", ".json", ".svg", ".png"}


def fim_stats(
    plan: Plan, names: list[str], paths: Paths, *, halves: bool = False, out: Path | None = None, force: bool = False
) -> str:
    """Writes statistics of the FIMs `names` and returns the text of `stats.md`.

    Args:
        plan: the compiled plan.
        names: identities of FIMs in the plan; paths of files or release folders are taken, too, but not with `halves`.
        paths: the folder layout.
        halves: also measure each FIM again in blocks, to see how many images are enough.
        out: folder of the results; None: results/fim-stats.
        force: compute even if the results are up to date.

    Raises:
        ConfigError: a FIM is given twice, or is unknown to the plan.
        InputError: a file is missing or damaged, or a FIM is no longer what the plan says.
        ForeignFisher: a FIM was measured on another backbone than the one that it would be measured on again.
    """
    sources = _sources(plan, names, paths, halves)
    folder = out or paths.results / "fim-stats"
    with exclusive("fim-stats", paths):
        inputs = _inputs(plan, sources, paths, halves)
        entries = {name: plan["fims"][name] for name in names if halves}
        key = value_digest({"inputs": inputs, "halves": entries, "order": list(sources), "code": _code(halves)})
        before = _record(folder)
        if not force and before.get("key") == key and _unchanged(folder, before):
            log.info("fim-stats: nothing to do, %s is up to date", folder)
            return (folder / "stats.md").read_text()
        limit_threads(plan["threads"])
        (folder / "record.json").unlink(missing_ok=True)
        made = _made(plan, sources, paths, halves)
        for file, data in made.items():
            write_bytes(folder / file, data)
        for file in before.get("outputs", {}):
            if file not in made and Path(file).name == file and Path(file).suffix in _OWN:
                (folder / file).unlink(missing_ok=True)
        outputs = {file: hashlib.sha256(data).hexdigest() for file, data in made.items()}
        code = {"version": __version__, "digest": _code(halves)}
        write_json(
            folder / "record.json",
            {"schema": 1, "step": "fim-stats", "key": key, "fims": list(sources), "split_half": halves, "inputs": inputs,
             "outputs": outputs, "code": code},
        )  # fmt: skip
    log.info("wrote %d files: %s", len(made) + 1, folder)
    return made["stats.md"].decode()


def _sources(plan: Plan, names: list[str], paths: Paths, halves: bool) -> dict[str, Path]:
    """The file or release folder of each name; a path is called by its folder, `fim.safetensors` says nothing."""
    found: dict[str, Path] = {}
    for name in names:
        path = Path(name)
        if name not in plan["fims"] and path.exists() and not halves:
            label = path.resolve().name if path.is_dir() else path.resolve().parent.name
        else:
            lookup(plan, "fims", name)
            label, path = name, paths.fim(name) / FIM
        if label in found:
            raise ConfigError(f"two FIMs are called '{label}'.", "name each once; copy a release to a folder of another name.")
        found[label] = path
    return found


def _inputs(plan: Plan, sources: Mapping[str, Path], paths: Paths, halves: bool) -> dict[str, str]:
    """Digests of all that is read; a missing file is left to the reader, who knows what to do about it."""
    found = {name: path / FIM if path.is_dir() else path for name, path in sources.items()}
    if halves:
        for name in sources:
            entry = plan["fims"][name]
            found[f"backbone of {name}"] = paths.backbone(entry["backbone"]) / "model.safetensors"
            found[f"bank of {name}"] = paths.data(entry["bank"]) / "manifest.json"
    return {name: file_digest(path) if path.is_file() else "missing" for name, path in found.items()}


def _made(plan: Plan, sources: Mapping[str, Path], paths: Paths, halves: bool) -> dict[str, bytes]:
    """Every file of the results, by name. One FIM is in memory at a time."""
    summaries: dict[str, Summary] = {}
    samples: dict[str, Sampled] = {}
    splits: dict[str, SplitHalf] = {}
    notes: list[str] = []
    for name, path in sources.items():
        fisher = load_fisher(path)
        summaries[name], samples[name] = summarise(fisher), Sampled.of(fisher)
        stored = {key: float(tensor.mean(dtype=torch.float64)) for key, tensor in fisher.items()}
        count, digest = fisher.count, fisher.backbone_digest
        del fisher
        if halves:
            splits[name] = _split(plan, name, paths, digest, count)
            notes += _agreement(name, splits[name], stored, count)
    alike = {(a, b): compare(samples[a], samples[b]) for a, b in combinations(sources, 2)}
    pairs = {pair: found for pair, found in alike.items() if found is not None}
    written = [tables.conditioning_table(summaries), tables.quantile_table(summaries), tables.layer_table(summaries)]
    written += [tables.correlation_table(pairs)] if pairs else []
    written += [tables.noise_table(splits)] if splits else []
    drawn = _figures(summaries, pairs, splits)
    made = {"stats.md": _text(written, drawn, notes).encode(), "stats.csv": csv(written[0]).encode()}
    made |= {f"{table.name}.csv": csv(table).encode() for table in written[1:]}
    made["stats.json"] = (json.dumps(_numbers(summaries, pairs, splits), indent=2, allow_nan=False) + "\n").encode()
    for name, (_, figure) in drawn.items():
        made[f"{name}.svg"], made[f"{name}.png"] = draw(figure)
    return made


def _split(plan: Plan, name: str, paths: Paths, digest: str, count: int) -> SplitHalf:
    """Measures the FIM `name`, stored with `digest` and `count` images, again block by block."""
    measurement = Measurement(plan, name, paths, choose_device())
    if count != len(measurement.rows):
        raise InputError(
            f"'{name}' was measured on {count} images, the plan says {len(measurement.rows)}.", f"run `anchored fim {name}`."
        )
    if digest != measurement.facts["backbone_digest"]:
        raise ForeignFisher(
            f"fim mismatch: '{name}' was measured on backbone {digest[:8]}…, {paths.backbone(measurement.entry['backbone'])} is "
            f"{measurement.facts['backbone_digest'][:8]}….",
            f"run `anchored fim {name}`.",
        )
    with progress(f"split-half {name}", len(measurement.rows)) as advance:

        def measure(start: int, stop: int) -> DiagonalFisher:
            found = measurement.fisher(start, stop)
            advance(stop - start)
            return found

        return split_half(measure, len(measurement.rows))


def _agreement(name: str, split: SplitHalf, stored: Mapping[str, float], count: int) -> list[str]:
    """How well the measurement in blocks repeats the stored FIM, where it covers the same images."""
    if split.images != count:
        return [f"{name}: measured again on the first {split.images} of its {count} images."]
    apart = max(abs(split.means[key] / value - 1) for key, value in stored.items() if value > 0)
    return [f"{name}: measured again on its {count} images; tensor means differ from the stored ones by at most {apart:.1e}."]


def _figures(summaries: Mapping[str, Summary], pairs: tables.Pairs, splits: Mapping[str, SplitHalf]) -> dict[str, Any]:
    """Figure name to (caption, what draws it)."""
    found: dict[str, tuple[str, Callable[[], Figure]]] = {}
    curves = {name: summary.spectrum["none"] for name, summary in summaries.items()}
    found["spectrum"] = ("sorted entries", lambda: figures.spectrum_figure(curves, title="Sorted entries of F"))
    for number, mass in enumerate(masses(summaries)):
        draw_mass = partial(fisher_figure, mass, title="Fisher mass by layer")
        found[f"mass-{number + 1}" if number else "mass"] = ("mass by layer", draw_mass)
    if pairs:
        names = list(summaries)
        overall, within = (np.full((len(names), len(names)), np.nan) for _ in range(2))
        np.fill_diagonal(overall, 1.0)
        np.fill_diagonal(within, 1.0)
        for (one, other), alike in pairs.items():
            row, column = names.index(one), names.index(other)
            overall[row, column] = overall[column, row] = alike.rank
            within[row, column] = within[column, row] = tables.median(alike.rank_of)
        found["correlation"] = (
            "rank correlations",
            lambda: figures.correlation_figure(names, overall, within, title="How alike FIMs are"),
        )
    if splits:
        found["noise"] = ("two halves", lambda: figures.split_half_figure(splits, title="How many images are enough"))
    return found


def _text(written: list[Table], drawn: Mapping[str, Any], notes: list[str]) -> str:
    parts = ["# FIM statistics\n"]
    parts += [markdown(table).replace("# ", "## ", 1).rstrip() + "\n" for table in written]
    parts += ["".join(f"- {note}\n" for note in notes)] if notes else []
    parts += ["## Figures\n", "\n\n".join(f"![{caption}]({name}.png)" for name, (caption, _) in drawn.items()) + "\n"]
    return "\n".join(parts)


def _numbers(summaries: Mapping[str, Summary], pairs: tables.Pairs, splits: Mapping[str, SplitHalf]) -> Any:
    """Everything as JSON; what is no number is null."""
    return _plain(
        {
            "schema": 1,
            "fims": {name: asdict(summary) for name, summary in summaries.items()},
            "pairs": [{"fims": list(pair), **asdict(alike)} for pair, alike in pairs.items()],
            "split_half": {name: asdict(split) for name, split in splits.items()},
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _code(halves: bool) -> str:
    digest = hashlib.sha256()
    for module in (*_CODE, *(_CODE_OF_HALVES if halves else ())):
        path = PACKAGE / module
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            digest.update(file.relative_to(PACKAGE).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "record.json"
    found = read_json(path, made_by="anchored fim-stats") if path.is_file() else {}
    return found if isinstance(found, dict) and found.get("step") == "fim-stats" else {}


def _unchanged(folder: Path, record: Mapping[str, Any]) -> bool:
    made = record["outputs"]
    return all((folder / file).is_file() and file_digest(folder / file) == digest for file, digest in made.items())
