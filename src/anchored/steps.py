"""What each step reads and writes, and which code it runs: one table for the commands, Snakemake and DVC.

Engines import this while they parse, so it needs nothing but the standard library. A parity test compares both engines'
graphs with each other; both take inputs, outputs and code from here.
"""

import hashlib
from functools import cache
from pathlib import Path

from anchored.locate import watched
from anchored.paths import Paths, source_file
from anchored.plan.load import Plan, lookup

PACKAGE = Path(__file__).parent

# Folders and modules of the package whose change makes a step's result stale. Engines cannot follow imports, so a test
# follows them. The frame around every step (this file, record, files, plan, ...) is left out: it computes no number. locate.py
# serves the frame, too, but the order of the files that it finds is the order of the images.
MODULES: dict[str, tuple[str, ...]] = {
    "prepare": ("preparation", "readers", "locate.py", "data/frames.py", "data/parallel.py", "data/store.py"),
    "pretrain": ("data", "backbones", "objectives", "distillation.py", "pretrain.py", "probe.py", "evaluate/metrics.py"),
    "fim": ("data", "backbones", "objectives", "fisher"),
    "fim-merge": ("data", "backbones", "objectives", "fisher"),
    "finetune": ("data", "backbones", "fisher", "finetune", "probe.py", "evaluate/metrics.py"),
    "evaluate": ("evaluate",),
    "tables": ("evaluate", "report"),
}

# Name of the plan's map -> step that makes its entries.
STEP_OF = {
    "datasets": "prepare",
    "backbones": "pretrain",
    "whole": "fim",
    "shards": "fim",
    "merged": "fim-merge",
    "baseline": "finetune",
    "anchored": "finetune",
    "evaluate": "evaluate",
    "tables": "tables",
}

# Foreign archives, by suffix, of which a command looks at size and time of change only: hashing ImageNet takes longer than the
# step that has nothing to do. The digest of every image that was taken from them is in the index; `prepare --check` compares.
BY_STAT = (".zip", ".tar", ".parquet")

# Maps that say only what an entry waits for -> the map that says what it is.
ENTRY_OF = {"whole": "fims", "merged": "fims"}


def code_files(step: str, package: Path = PACKAGE) -> list[Path]:
    """All source files of a step, sorted; `package` may be another copy of this one."""
    files: list[Path] = []
    for module in MODULES[step]:
        path = package / module
        files += [path] if path.suffix else path.rglob("*.py")
    return sorted(files)


def code_digest(step: str, package: Path = PACKAGE) -> str:
    """SHA-256 over the names and bytes of the source files that a step runs; those that another copy lacks count as missing."""
    digest = hashlib.sha256()
    for path in code_files(step, package):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def outputs(kind: str, name: str, paths: Paths) -> list[Path]:
    """Files that the entry `name` of the plan's map `kind` writes; the first is the one that others depend on."""
    match kind:
        case "datasets":
            return [paths.data(name) / file for file in ("manifest.json", "images.npy", "index.parquet", "record.json")]
        case "backbones" | "pretrained" | "completed" | "imported":
            return [paths.backbone(name) / file for file in ("model.safetensors", "record.json")]
        case "fims" | "whole" | "merged":
            return [paths.fim(name) / file for file in ("fim.safetensors", "record.json", "card.md")]
        case "shards":
            return [paths.shard(name) / file for file in ("sums.safetensors", "record.json")]
        case "baseline" | "anchored":
            files = ("predictions.parquet", "history.parquet", "models.safetensors", "record.json")
            return [paths.run(name) / file for file in files]
        case "evaluate":
            return [paths.metrics, paths.metrics_csv, paths.comparisons, paths.selected, paths.results / "evaluate.record.json"]
        case "tables":
            return [paths.tables, paths.figures, paths.report, paths.results / "tables.record.json"]
    raise KeyError(kind)


def split_record(made: list[Path]) -> tuple[list[Path], Path]:
    """Outputs without their record, and the record."""
    (record,) = [path for path in made if path.name.endswith("record.json")]
    return [path for path in made if path != record], record


def inputs(kind: str, name: str, plan: Plan, paths: Paths) -> dict[Path, str]:
    """Files that the entry reads, each with the command that makes it."""
    if kind == "evaluate":
        jobs = [("baseline", job) for job in plan["baseline"]] + [("anchored", job) for job in plan["anchored"]]
        runs = {outputs(group, job, paths)[0]: f"anchored finetune {job}" for group, job in jobs}
        datasets = dict.fromkeys(experiment["dataset"] for experiment in plan["experiments"].values())
        return {_made(dataset, "datasets", paths): f"anchored prepare {dataset}" for dataset in datasets} | runs
    if kind == "tables":
        made = {path: "anchored evaluate" for path in split_record(outputs("evaluate", "", paths))[0]}
        datasets = dict.fromkeys(experiment["dataset"] for experiment in plan["experiments"].values())
        made |= {_made(dataset, "datasets", paths): f"anchored prepare {dataset}" for dataset in datasets}
        return made | {_made(fim, "fims", paths): f"anchored fim {fim}" for fim in plan["fims"]}
    if kind == "merged":
        shards = {shard: plan["shards"][shard] for shard in plan["merged"][name]["shards"]}
        return {_made(shard, "shards", paths): f"anchored fim {name} --shard {entry['shard']}" for shard, entry in shards.items()}
    entry = lookup(plan, ENTRY_OF.get(kind, kind), name)
    needs: dict[Path, str] = {}
    for key, group, verb in (
        ("dataset", "datasets", "prepare"),
        ("bank", "datasets", "prepare"),
        ("probe", "datasets", "prepare"),
        ("backbone", "backbones", "pretrain"),
        ("fim", "fims", "fim"),
    ):
        if entry.get(key) and kind != "datasets" and not (kind == "shards" and key == "fim"):
            needs[_made(entry[key], group, paths)] = f"anchored {verb} {entry[key]}"
    return needs


def foreign_inputs(kind: str, name: str, plan: Plan, paths: Paths) -> list[Path]:
    """Files that no step makes and the entry reads: lists and archives of images, a checkpoint. Engines do not watch them; the
    commands do. See `BY_STAT`.
    """
    entry = plan[kind].get(name, {}) if kind in ("datasets", "backbones") else {}
    if kind == "datasets":
        return watched(entry, paths.root)
    if (entry.get("weights") or {}).get("checkpoint"):
        weights = paths.root / entry["weights"]["checkpoint"]
        return [weights, source_file(weights)]
    return []


@cache
def _made(name: str, kind: str, paths: Paths) -> Path:
    """The main output of an entry; remembered, since thousands of jobs read the same few."""
    return outputs(kind, name, paths)[0]
