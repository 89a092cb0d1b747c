"""The step `fim`: the diagonal Fisher of a backbone on the first images of a bank's seeded order."""

import copy
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anchored.backbones.checkpoint import load_anchor, load_state, network
from anchored.backbones.features import feature_width, normalise
from anchored.backbones.heads import DinoHead, dino_head
from anchored.data.store import Store, open_store
from anchored.data.views import ViewMaker, draw, join
from anchored.device import choose_device, describe, limit_threads, place
from anchored.errors import ConfigError
from anchored.files import write_text
from anchored.fisher.card import card
from anchored.fisher.diagonal import diagonal_fisher
from anchored.fisher.digest import backbone_digest
from anchored.fisher.io import save_fisher
from anchored.fisher.statistics import statistics
from anchored.objectives.image_loss import DinoImageLoss
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.progress import progress
from anchored.record import planned_step


def fim(plan: Plan, name: str, paths: Paths, *, force: bool = False) -> None:
    """Measures the FIM `name` of the plan into `results/fim/<name>/`."""
    entry = lookup(plan, "fims", name)
    with planned_step(plan, "fims", name, paths).run(force=force) as running:
        if not running:
            return
        limit_threads(entry["threads"])
        device = choose_device()
        running.device = describe(device)
        backbone = lookup(plan, "backbones", entry["backbone"])
        source = paths.backbone(entry["backbone"]) / "model.safetensors"
        model, tensors = load_anchor(source, backbone, made_by=f"anchored pretrain {entry['backbone']}")
        model = place(model, device)
        loss = _loss(entry, backbone, model, tensors, device)
        bank = open_store(paths.data(entry["bank"]))
        started = time.perf_counter()
        with progress(f"fim {name}", entry["images"]) as advance:
            seen = 0

            def on_batch(count: int) -> None:
                nonlocal seen
                advance(count - seen)
                seen = count

            batches = _batches(entry, backbone, bank, device)
            fisher = diagonal_fisher(model, batches, loss, backend=entry["backend"], on_batch=on_batch)
        seconds = time.perf_counter() - started
        facts = {
            "backbone": entry["backbone"],
            "backbone_digest": backbone_digest(dict(model.named_parameters())),
            "anchor": backbone["anchor"],
            "objective": entry["objective"],
            "estimator": entry["estimator"],
            "bank": entry["bank"],
            "views": f"{entry['views']['global_crops']} global, {entry['views']['local_crops']} local",
            "scale": "raw: mean over images of the squared gradient of the loss per image (mean over pairs of views)",
        }
        summary = statistics(fisher)
        save_fisher(paths.fim(name) / "fim.safetensors", fisher, metadata=facts)
        write_text(paths.fim(name) / "card.md", card(name, facts, fisher, summary))
        running.measure(
            **facts,
            count=fisher.count,
            backend=fisher.backend,
            backend_reason=fisher.reason,
            trace=summary.trace,
            effective_rank=summary.effective_rank,
            images_per_second=round(fisher.count / seconds, 1),
        )


def _loss(
    entry: Mapping[str, Any], backbone: Mapping[str, Any], model: nn.Module, tensors: dict[str, Tensor], device: torch.device
) -> DinoImageLoss:
    """The image loss with the stored head, teacher and centre.

    Raises:
        ConfigError: the backbone was imported without a head, so it has no DINO loss.
    """
    if not backbone["pretraining"]:
        raise ConfigError(
            f"backbone '{entry['backbone']}' was imported without an SSL head, so it has no {entry['objective']} loss.",
            "measure the FIM of a pre-trained backbone, or import a full checkpoint with its head.",
        )
    dino = backbone["pretraining"]["dino"]

    def head(which: str) -> DinoHead:
        loaded = dino_head(feature_width(model), dino, seed=0)
        load_state(loaded, network(tensors, f"{which}_head"), where=f"{which}_head of {entry['backbone']}")
        return loaded.to(device)

    teacher = copy.deepcopy(model)
    load_state(teacher, network(tensors, "teacher"), where=f"teacher of {entry['backbone']}")
    centre = tensors["centre"].to(device)
    return DinoImageLoss(head(backbone["anchor"]), (teacher, head("teacher")), centre, dino, estimator=entry["estimator"])


def _batches(
    entry: Mapping[str, Any], backbone: Mapping[str, Any], bank: Store, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Views of the chosen images; each image has its own generator, so batches do not change its views."""
    policy, size = entry["views"], len(bank.packed)
    if entry["images"] > size:
        raise ConfigError(f"fims.images is {entry['images']}, the bank '{entry['bank']}' has {size}.", "lower fims.images.")
    maker = ViewMaker(bank, policy, device)
    order = np.random.default_rng([entry["seed"]]).permutation(size)[: entry["images"]]
    for start in range(0, len(order), entry["batch"]):
        rows = order[start : start + entry["batch"]]
        generators = [np.random.default_rng([entry["seed"], int(row)]) for row in rows]
        draws = join([draw(generator, 1, policy, size) for generator in generators])
        large, small = maker(rows, draws)
        views = policy["global_crops"] + policy["local_crops"]
        uniforms = np.stack([generator.random(views, dtype=np.float32) for generator in generators])
        batch = {"large": normalise(large, backbone), "uniforms": torch.from_numpy(uniforms).to(device)}
        if small is not None:
            batch["small"] = normalise(small, backbone)
        yield batch
