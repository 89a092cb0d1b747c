"""The step `pretrain`: a backbone trained by self-supervision on an unlabelled bank, or imported, with or without an SSL head."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anchored.backbones.build import check_view_sizes, seeded
from anchored.backbones.checkpoint import save_checkpoint
from anchored.backbones.features import stored_features
from anchored.backbones.imports import Imported, import_weights
from anchored.data.store import Store, open_store
from anchored.device import choose_device, describe, limit_threads
from anchored.distillation import Networks, estimate_centre, train
from anchored.files import value_digest
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.plan.naming import derive_seed
from anchored.probe import probe
from anchored.record import Running, planned_step


def pretrain(plan: Plan, name: str, paths: Paths, *, force: bool = False) -> None:
    """Makes the backbone `name` of the plan: `results/backbones/<name>/model.safetensors`."""
    entry = lookup(plan, "backbones", name)
    state = paths.work(f"pretrain-{name}") / "state.pt"
    with planned_step(plan, "backbones", name, paths).run(force=force) as running:
        if not running:
            return
        if force:
            shutil.rmtree(state.parent, ignore_errors=True)
        limit_threads(entry["threads"])
        target = paths.backbone(name) / "model.safetensors"
        if entry["weights"]:
            imported = import_weights(entry, paths.root)
            running.measure(**imported.facts)
            if entry["head"]:
                bank = open_store(paths.data(entry["bank"]))
                _complete(name, entry, imported, bank, running, state)
            heads = {f"{which}_head": head for which, head in imported.heads.items()}
            save_checkpoint(target, imported.networks | heads, {} if imported.centre is None else {"centre": imported.centre})
        else:
            _train(name, entry, target, paths, running, state)
    shutil.rmtree(state.parent, ignore_errors=True)  # not before the record vouches for the result


def _train(name: str, entry: Mapping[str, Any], target: Path, paths: Paths, running: Running, state: Path) -> None:
    """Trains both networks from random weights and writes them to `target`."""
    device = choose_device()
    running.device = describe(device)
    networks = Networks.create(entry, device)
    bank = open_store(paths.data(entry["bank"]))
    _check_views(networks.student, entry, bank, "pretraining")
    running.measure(**train(networks, entry["pretraining"], entry, bank, name=name, state=state, key=_key(running)))
    running.measure(probe=_probes(entry, networks, open_store(paths.data(entry["probe"])), device))
    save_checkpoint(
        target,
        {
            "student": networks.student,
            "teacher": networks.teacher,
            "student_head": networks.student_head,
            "teacher_head": networks.teacher_head,
        },
        {"centre": networks.centre},
    )


def _key(running: Running) -> str:
    return value_digest({"key": running.key, "device": running.device})


def _complete(name: str, entry: Mapping[str, Any], imported: Imported, bank: Store, running: Running, state: Path) -> None:
    """Adds what an SSL loss needs to `imported`: heads, centre; and what was done to the record."""
    device = choose_device()
    running.device = describe(device)
    student = imported.networks["student"]
    _check_views(student, entry, bank, "head")
    if entry["head"]["from"] == "trained":
        networks = Networks.on_frozen(student, entry, device)
        running.measure(head=train(networks, entry["head"], entry, bank, name=name, state=state, key=_key(running)))
        imported.heads = {"student": networks.student_head, "teacher": networks.teacher_head}
        imported.centre = networks.centre
    elif imported.centre is not None:
        running.measure(centre={"from": "checkpoint"})
    else:
        imported.centre = estimate_centre(imported.networks["teacher"], imported.heads["teacher"], entry, bank, device)
        running.measure(centre={"from": "bank", "images": entry["head"]["images"]})


def _check_views(model: nn.Module, entry: Mapping[str, Any], bank: Store, part: str) -> None:
    where = f"backbones.{entry['family']}.{part}.views"
    check_view_sizes(model, entry[part]["views"], bank.packed.shape[1], where=where)


def _probes(entry: Mapping[str, Any], networks: Networks, data: Store, device: torch.device) -> dict[str, Any]:
    """Probes of random weights, student and teacher, measured on `val` of draw 0.

    Fitted on the split `balanced`, which digitscenes has for it, or on `train`.
    """
    fit_split = "balanced" if "balanced" in data.manifest["groups"] else "train"
    random = seeded(entry["architecture"], derive_seed(entry["seed"], "weights")).to(device)
    rows = {split: data.rows(split, 0) for split in (fit_split, "val")}
    labels = {split: data.column("y", chosen) for split, chosen in rows.items()}
    groups = data.column("group", rows["val"])
    found = {}
    for name, network in {"random": random, "student": networks.student, "teacher": networks.teacher}.items():
        fitted, measured = (stored_features(network, data.layer("image"), chosen, entry, device) for chosen in rows.values())
        found[name] = probe(fitted, labels[fit_split], measured, labels["val"], groups)
    return found
