"""What a FIM of the plan is measured with: the network at its anchor, the loss of an image, and views of any range of images."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anchored.backbones.build import check_view_sizes
from anchored.backbones.checkpoint import load_anchor, load_state, network, trunk
from anchored.backbones.features import feature_width, normalise
from anchored.backbones.heads import DinoHead, dino_head, dino_settings
from anchored.data.draws import join
from anchored.data.recipes import view_maker
from anchored.data.store import open_store
from anchored.device import arithmetic, place
from anchored.errors import ConfigError
from anchored.files import file_digest, read_json, value_digest
from anchored.fisher.diagonal import Backend, DiagonalFisher, diagonal_fisher
from anchored.fisher.digest import backbone_digest
from anchored.objectives.image_loss import DinoImageLoss
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup


class Measurement:
    """The FIM `name` of the plan, ready to be measured in parts.

    Args:
        plan: the compiled plan.
        name: identity of the FIM.
        paths: the folder layout.
        device: where the network and the views are.
        dtype: of parameters and views. With torch.float64, the exact values that a precision is compared with.

    Attributes:
        entry: the FIM's entry of the plan.
        model: the backbone at the anchor, in eval mode.
        loss: loss(model, batch) -> (B,).
        rows: (N,) rows of the bank in the order of measurement.
        facts: what is measured, as text for a file's metadata.

    Raises:
        ConfigError: the bank has fewer images than asked for, or the backbone has no SSL head.
        InputError: the backbone's file is not what the plan says.
    """

    def __init__(
        self, plan: Plan, name: str, paths: Paths, device: torch.device, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.entry: Mapping[str, Any] = lookup(plan, "fims", name)
        self._backbone = lookup(plan, "backbones", self.entry["backbone"])
        self._device = device
        self._dtype = dtype
        source = paths.backbone(self.entry["backbone"]) / "model.safetensors"
        model, tensors = load_anchor(source, self._backbone, made_by=f"anchored pretrain {self.entry['backbone']}")
        digest = backbone_digest(dict(model.named_parameters()))
        self.model = place(model.to(dtype), device)
        tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        self.loss = _loss(self.entry, self._backbone, self.model, tensors)
        folder = paths.data(self.entry["bank"])
        self._bank = open_store(folder)
        check_view_sizes(model, self.entry["views"], self._bank.packed.shape[1], where=f"fims.{name}.views")
        self.rows = _rows(self.entry, len(self._bank.packed))
        found = {"anchor": self._backbone["anchor"], "backbone_digest": digest}
        # The bank is named by its manifest, the images by their rows in it, in order, as little-endian int64.
        images = sha256(self.rows.astype("<i8").tobytes()).hexdigest()
        found |= {"bank_digest": file_digest(folder / "manifest.json"), "images_digest": images}
        found |= _weights_facts(self._backbone, paths.backbone(self.entry["backbone"]) / "record.json", self.entry["backbone"])
        self.facts: dict[str, str] = planned_facts(self.entry) | found

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Tensor]]:
        """Views of the images `start` to `stop` of `rows`; each has its own generator, so its views do not depend on the range.

        Yields:
            `large` (B, G, 3, S, S), `small` (B, L, 3, s, s) where there are local views, and `uniforms` (B, G + L).
        """
        policy = self.entry["views"]
        maker = view_maker(self._bank, policy, self._device)
        chosen = self.rows[start:stop]
        for first in range(0, len(chosen), self.entry["batch"]):
            rows = chosen[first : first + self.entry["batch"]]
            generators = [np.random.default_rng([self.entry["seed"], int(row)]) for row in rows]
            draws = join([maker.draw(generator, rows[each : each + 1]) for each, generator in enumerate(generators)])
            large, small = maker(rows, draws)
            views = policy["global_crops"] + policy["local_crops"]
            uniforms = np.stack([generator.random(views, dtype=np.float32) for generator in generators])
            batch = {"large": normalise(large, self._backbone), "uniforms": torch.from_numpy(uniforms).to(self._device)}
            if small is not None:
                batch["small"] = normalise(small, self._backbone)
            yield {key: values.to(self._dtype) for key, values in batch.items()}

    def fisher(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        backend: Backend | None = None,
        batches: Iterable[dict[str, Tensor]] | None = None,
        before: DiagonalFisher | None = None,
        on_batch: Callable[[DiagonalFisher], None] | None = None,
    ) -> DiagonalFisher:
        """F on the images `start` to `stop` of `rows`, in the arithmetic of the plan.

        Args:
            start: first image.
            stop: one behind the last; None for the end.
            backend: instead of the plan's.
            batches: instead of `batches(start, stop)`: the same, made ahead, or what an interrupted measurement had left.
            before: what the interrupted measurement had measured.
            on_batch: see `diagonal_fisher`.

        Raises:
            ConfigError: the arithmetic is one that the device lacks, or as `diagonal_fisher`.
            NumericalError: as `diagonal_fisher`.
        """
        with arithmetic(self.entry["precision"], self._device):
            return diagonal_fisher(
                self.model,
                self.batches(start, stop) if batches is None else batches,
                self.loss,
                backend=backend or self.entry["backend"],
                dtype=self._dtype,
                seed=self.entry["seed"],
                first_image=start,
                start=before,
                on_batch=on_batch,
            )


def _rows(entry: Mapping[str, Any], size: int) -> NDArray[np.int64]:
    if entry["images"] > size:
        raise ConfigError(f"fims.images is {entry['images']}, the bank '{entry['bank']}' has {size}.", "lower fims.images.")
    return np.random.default_rng([entry["seed"]]).permutation(size)[: entry["images"]]


def planned_facts(entry: Mapping[str, Any]) -> dict[str, str]:
    """What the plan's entry of a FIM says about it, as text for a file's metadata."""
    return {
        "backbone": entry["backbone"],
        "objective": entry["objective"],
        "estimator": entry["estimator"],
        "bank": entry["bank"],
        "seed": str(entry["seed"]),
        "precision": entry["precision"],
        "views": f"{entry['views']['recipe']}: {entry['views']['global_crops']} global, {entry['views']['local_crops']} local",
        "views_digest": value_digest(entry["views"]),
        "scale": "raw: mean over images of the squared gradient of the loss per image (mean over pairs of views)",
    }


def _weights_facts(backbone: Mapping[str, Any], record: Path, name: str) -> dict[str, str]:
    """Whose weights were measured: what the plan calls imported ones, and what their file's provenance says of it."""
    if not backbone["weights"]:
        return {}
    facts = {"weights": str(backbone["weights"]["source"])}
    found = read_json(record, made_by=f"anchored pretrain {name}")["measurements"].get("source", {}).get("file")
    if found:
        facts["weights_file"] = f"{found['name']}, version {found['version']}"
        facts["weights_licences"] = "; ".join(found["licences"])
        facts["weights_note"] = found["note"]
    return {key: " ".join(value.split()) for key, value in facts.items() if value}


def _loss(
    entry: Mapping[str, Any], backbone: Mapping[str, Any], model: nn.Module, tensors: dict[str, Tensor]
) -> DinoImageLoss:
    """The image loss with the stored head, teacher and centre.

    Raises:
        ConfigError: the backbone was imported without a head, so it has no DINO loss.
    """
    dino = dino_settings(backbone)
    like = next(model.parameters())

    def head(which: str) -> DinoHead:
        loaded = dino_head(feature_width(model), dino, seed=0).to(like.dtype)
        load_state(loaded, network(tensors, f"{which}_head"), where=f"{which}_head of {entry['backbone']}")
        return loaded.to(like.device)

    teacher = copy.deepcopy(model)
    load_state(teacher, trunk(tensors, "teacher"), where=f"teacher of {entry['backbone']}")
    return DinoImageLoss(
        head(backbone["anchor"]),
        (teacher, head("teacher")),
        tensors["centre"].to(like.device),
        dino,
        estimator=entry["estimator"],
        # Exact values are exact: a low precision is for the type it replaces.
        autocast=torch.bfloat16 if entry["precision"] == "bf16" and like.dtype == torch.float32 else None,
    )
