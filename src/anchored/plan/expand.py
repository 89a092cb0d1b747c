"""From a configuration to the compiled plan: every copy, cell and job, each entry with all that its step needs.

A step never reads the configuration; it reads its own entry. Identities of cells come from values, so that adding a grid
point leaves every other cell as it is.
"""

from pathlib import PurePosixPath
from typing import Any

from anchored.errors import ConfigError
from anchored.files import value_digest
from anchored.plan.arms import ANCHORED_ARMS, Ewc, configurations, grid
from anchored.plan.base import Section
from anchored.plan.config import Backbone, Config, Experiment
from anchored.plan.datasets import BANKS, DigitBank, TrainingImages, kind
from anchored.plan.load import SCHEMA, Plan
from anchored.plan.naming import configuration_label, copy_names, derive_seed, shard_name
from anchored.plan.preprocessing import augmentation, transform

# Inputs of the tiny networks, whose images have no published statistics.
_MEAN, _STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


def expand(config: Config) -> Plan:
    """The plan of a configuration.

    Raises:
        ConfigError: two entries would get the same identity.
    """
    plan: Plan = {"schema": SCHEMA, "name": config.name, "seed": config.seed, "threads": config.threads}
    plan["datasets"] = _datasets(config)
    plan["backbones"] = _backbones(config)
    plan["pretrained"], plan["completed"], plan["imported"] = _origins(plan["backbones"])
    plan["fims"] = _fims(config)
    plan["shards"] = _shards(plan["fims"])
    plan["whole"], plan["merged"] = _parts(plan["fims"], plan["shards"])
    plan["experiments"] = {name: _experiment(config, name) for name in config.experiments}
    plan["cells"] = _cells(config)
    plan["baseline"], plan["anchored"] = _jobs(config, plan["cells"])
    return plan


def _dump(section: Section) -> dict[str, Any]:
    return section.model_dump(mode="json", by_alias=True)


def _datasets(config: Config) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, dataset in config.datasets.items():
        entry = _dataset(dataset)
        if isinstance(dataset, DigitBank):
            entry["scenes"] = _dump(config.datasets[dataset.scenes])
        if isinstance(dataset, TrainingImages):
            source = config.datasets[dataset.of]
            entry |= {key: entry[key] or getattr(source, key) for key in ("size", "convention")}
            entry |= {"of": _dataset(source), "transform": _transform(entry, source)}
        entry["seed"] = derive_seed(config.seed, "data", name)
        entries[name] = entry | {"threads": config.threads}
    return entries


def _dataset(dataset: Section) -> dict[str, Any]:
    entry = _dump(dataset) | {"labelled": not isinstance(dataset, BANKS)}
    return entry | ({"transform": _transform(entry, dataset)} if entry.get("convention") else {})


def _transform(entry: dict[str, Any], dataset: Section) -> list[dict[str, Any]]:
    return transform(entry["convention"], kind(dataset), entry["size"])


def _backbones(config: Config) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for family, backbone in config.backbones.items():
        fields = {key: value for key, value in _dump(backbone).items() if key != "copies"}
        if backbone.architecture.family != "timm":  # timm's are known to timm only, which no plan imports: its steps look them up
            fields["mean"], fields["std"] = fields["mean"] or _MEAN, fields["std"] or _STD
        if backbone.weights:
            fields["weights"]["source"] = backbone.weights.source or _source(backbone)
        for copy, name in enumerate(copy_names(family, backbone.copies), start=1):
            entry = {"family": family, "copy": copy, **fields}
            if backbone.pretraining:
                entry |= {"bank": backbone.pretraining.bank, "probe": backbone.pretraining.probe}
            if backbone.head:
                entry["bank"] = backbone.head.bank
            entry |= {"seed": derive_seed(config.seed, "pretrain", family, copy), "threads": config.threads}
            _add(entries, name, entry, "backbones")
    return entries


def _title(name: str, experiment: Experiment, config: Config) -> str:
    """What tables call an experiment without a title; its name says more where another one compares on the same."""
    compared = (experiment.dataset, experiment.backbone)
    plain = ", ".join(compared)
    alike = [other for other in config.experiments.values() if (other.dataset, other.backbone) == compared]
    return plain if len(alike) == 1 else f"{name}: {plain}"


def _source(backbone: Backbone) -> str:
    """What imported weights are, where the configuration does not say it."""
    if backbone.weights is None or backbone.weights.checkpoint is None:
        return f"timm {getattr(backbone.architecture, 'name', '')}"
    return PurePosixPath(backbone.weights.checkpoint).name


def _origins(backbones: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Backbones by what they wait for: DVC cannot leave an input out. Pre-trained here, imported and completed with a head on a
    bank, imported as they are.
    """
    origins: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = {}, {}, {}
    for name, entry in backbones.items():
        needs = {key: entry[key] for key in ("bank", "probe") if key in entry}
        origins[2 - len(needs)][name] = needs
    return origins


def _fims(config: Config) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, fim in config.fims.items():
        copies = config.backbones[fim.backbone].copies
        pairs = zip(copy_names(name, copies), copy_names(fim.backbone, copies), strict=True)
        for fim_name, backbone in pairs:
            entry = _dump(fim) | {"backbone": backbone}
            entry |= {"seed": derive_seed(config.seed, "fim", name, backbone), "threads": config.threads}
            _add(entries, fim_name, entry, "fims")
    return entries


def _shards(fims: dict[str, Any]) -> dict[str, Any]:
    """The image ranges of each FIM that is measured in parts: whole batches, so that no batch depends on the number of shards."""
    shards: dict[str, Any] = {}
    for fim, entry in fims.items():
        count, batch, images = entry["shards"], entry["batch"], entry["images"]
        batches = -(-images // batch)
        for index in range(count if count > 1 else 0):
            start, stop = (min(images, (number * batches // count) * batch) for number in (index, index + 1))
            shard = {"fim": fim, "shard": f"{index + 1}/{count}", "start": start, "stop": stop}
            _add(shards, shard_name(fim, index + 1), shard | entry, "shards")
    return shards


def _parts(fims: dict[str, Any], shards: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """FIMs by how they are made, each with what it waits for: DVC cannot leave an input out."""
    merged: dict[str, Any] = {}
    for name, shard in shards.items():
        merged.setdefault(shard["fim"], {"shards": []})["shards"].append(name)
    whole = {name: {key: entry[key] for key in ("bank", "backbone")} for name, entry in fims.items() if name not in merged}
    return whole, merged


def _experiment(config: Config, name: str) -> dict[str, Any]:
    experiment = config.experiments[name]
    arms = experiment.arms.present()
    entry = _dump(experiment)
    for key in ("training", "configurations_per_job", "replicates_per_job"):
        del entry[key]
    entry["title"] = experiment.title or _title(name, experiment, config)
    backbone = config.backbones[experiment.backbone]
    entry["backbones"] = copy_names(experiment.backbone, backbone.copies)
    # What a reader must know whatever the note says: whose weights, and what no arm trains.
    said = [experiment.note]
    if backbone.weights:
        said.append(f"Backbone: {(backbone.weights.source or _source(backbone)).rstrip('.')}.")
    if experiment.training.frozen_stages is not None:
        said.append(f"The stem and the first {experiment.training.frozen_stages} stages are fixed in all arms.")
    entry["note"] = " ".join(filter(None, said))
    entry["contrasts"] = [list(pair) for pair in experiment.contrasts if set(pair) <= set(arms)]
    entry["arms"] = {
        arm: {
            "grid": {key: list(values) for key, values in grid(section).items()},
            "configurations": [configuration_label(hyper) for hyper in configurations(section)],
        }
        for arm, section in arms.items()
    }
    return entry


def _cells(config: Config) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, experiment in config.experiments.items():
        backbone = config.backbones[experiment.backbone]
        backbones = copy_names(experiment.backbone, backbone.copies)
        fims = copy_names(experiment.fim, backbone.copies) if experiment.fim else [None] * backbone.copies
        for copy, fim in zip(backbones, fims, strict=True):
            for arm, section in experiment.arms.present().items():
                for hyper in configurations(section):
                    for replicate in range(experiment.replicates):
                        label = configuration_label(hyper)
                        entry = {
                            "experiment": name,
                            "dataset": experiment.dataset,
                            "draw": replicate % getattr(config.datasets[experiment.dataset], "draws", 1),
                            "backbone": copy,
                            "family": experiment.backbone,
                            "fim": fim if arm in ANCHORED_ARMS else None,
                            "arm": arm,
                            "configuration": label,
                            "hyper": hyper,
                            "conditioning": _dump(section.conditioning) if isinstance(section, Ewc) else None,
                            "replicate": replicate,
                            "seed": derive_seed(config.seed, "run", experiment.dataset, copy, replicate),
                            "training": _training(config, experiment),
                            "threads": config.threads,
                        }
                        _add(cells, f"{name}-{copy}-{arm}-{label}-r{replicate}", entry, "cells")
    return cells


def _training(config: Config, experiment: Experiment) -> dict[str, Any]:
    entry = _dump(experiment.training)
    # The steps in place of their name, and nothing where there are none.
    steps = augmentation(entry.pop("augmentation"), kind(config.datasets[experiment.dataset]))
    if entry["frozen_stages"] is None:
        del entry["frozen_stages"]
    return entry | ({"augmentation": steps} if steps else {})


def _jobs(config: Config, cells: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    baseline: dict[str, Any] = {}
    anchored: dict[str, Any] = {}
    for name, experiment in config.experiments.items():
        for arm, labels in _arm_labels(experiment).items():
            for backbone in copy_names(experiment.backbone, config.backbones[experiment.backbone].copies):
                for number, (chosen, replicates) in enumerate(_chunks(experiment, labels), start=1):
                    members = [f"{name}-{backbone}-{arm}-{label}-r{replicate}" for label in chosen for replicate in replicates]
                    job: dict[str, Any] = {"dataset": experiment.dataset, "backbone": backbone}
                    if arm in ANCHORED_ARMS:
                        job["fim"] = cells[members[0]]["fim"]
                    # The digest lets an engine that watches only this entry notice a change inside a cell.
                    job |= {"cells": members, "digest": value_digest([cells[cell] for cell in members])}
                    target = anchored if arm in ANCHORED_ARMS else baseline
                    _add(target, f"{name}-{backbone}-{arm}-{number}", job, "jobs")
    clashes = (baseline.keys() | anchored.keys()) & cells.keys() | (baseline.keys() & anchored.keys())
    if clashes:
        raise ConfigError(f"a job and a cell would share the name '{sorted(clashes)[0]}'.", "rename the experiment.")
    return baseline, anchored


def _chunks(experiment: Experiment, labels: list[str]) -> list[tuple[list[str], range]]:
    """Configurations and replicates of each job of an arm."""
    step, count = experiment.configurations_per_job, experiment.replicates
    few = min(experiment.replicates_per_job or count, count)
    return [
        (labels[start : start + step], range(first, min(first + few, count)))
        for start in range(0, len(labels), step)
        for first in range(0, count, few)
    ]


def _arm_labels(experiment: Experiment) -> dict[str, list[str]]:
    return {
        arm: [configuration_label(hyper) for hyper in configurations(section)]
        for arm, section in experiment.arms.present().items()
    }


def _add(entries: dict[str, Any], name: str, entry: dict[str, Any], kind: str) -> None:
    if name in entries:
        raise ConfigError(f"two {kind} would be named '{name}'.", "rename one, or remove a repeated grid value.")
    entries[name] = entry
