"""The README of a published FIM: what it is, how to load it, what it looks like, what it cannot do."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from anchored.diagnostics.tables import scientific
from anchored.fisher.folder import BACKBONE, FIM, SUMS
from anchored.release.metadata import Metadata
from anchored.report.text import fixed, percent

_ESTIMATORS = {
    "teacher": "the squared gradient of the SSL loss with the teacher's soft targets: an empirical Fisher, not the true one",
    "sampled": "labels drawn from the network's own prediction, one draw a view: the true Fisher, by Monte Carlo",
}


def card(metadata: Metadata, *, with_backbone: bool) -> str:
    """The text of `README.md`.

    Args:
        metadata: of this release.
        with_backbone: whether the anchor weights lie in the folder.
    """
    measured, backbone = metadata.measurement, metadata.backbone
    return "\n".join(
        [
            f"# {metadata.name}: diagonal Fisher information of {backbone.name}",
            "",
            f"F = (1/N) sum over {measured.images} images of the squared gradient of the {measured.objective} loss of one image, "
            "its views joined before the square: how much each weight of the backbone matters to its pre-training task. For an "
            "EWC anchor, or to see where a network keeps what it knows.",
            "",
            "## Load",
            "",
            "```python",
            *_code(metadata, with_backbone),
            "```",
            "",
            "`load_fisher` checks every file of the folder, then that the model holds the very weights that F was measured at "
            f"(digest `{backbone.digest[:16]}…`), and hands F back under the model's own names: timm, torchvision and the original "
            "DINO code are told apart. The new head has no Fisher and stays free.",
            "",
            "## What it is",
            "",
            tabulate(_facts(metadata), headers=("fact", "value"), tablefmt="github", disable_numparse=True),
            "",
            f"Everything else is in `metadata.json`. `{FIM}` holds the raw F; `sha256sum -c {SUMS}` checks the folder.",
            "",
            "## What it looks like",
            "",
            tabulate(_uneven(metadata), _UNEVEN, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 7)),
            "",
            "min is over the non-zero entries; q95 / q05 the ratio of their quantiles; effective rank (sum F)² / sum F². All "
            "conditionings but `none` have mean 1: choose one with `condition(fisher, kind, value)`.",
            "",
            "![Entries of F, by conditioning and by layer](spectrum.png)",
            "",
            "## Limits",
            "",
            f"- Estimator `{measured.estimator}`: {_ESTIMATORS.get(measured.estimator, 'see metadata.json')}.",
            "- It belongs to these weights. Fine-tuned or otherwise different ones are refused.",
            f"- It is an estimate from {measured.images} images of one bank ({measured.bank}); other images give another F.",
            "- It is a diagonal: what two weights do together is not in it. It covers the backbone, no head.",
            "- Its scale is that of the loss: a penalty strength means something only together with the conditioning.",
            "",
            "## Licence",
            "",
            _licence(metadata.licence),
            "",
        ]
    )


def licence_text(metadata: Metadata) -> str:
    """The notice in the file LICENSE."""
    return (
        f"SPDX-License-Identifier: {metadata.licence}\n\n"
        f"The files of this folder ({metadata.name}: diagonal Fisher information of {metadata.backbone.name}) are published under "
        f"{metadata.licence}.\nThe texts of SPDX licences are at https://spdx.org/licenses/.\n"
    )


_UNEVEN = ("conditioning", "min", "max", "max / min", "q95 / q05", "effective rank", "% of n", "zeros")


def _uneven(metadata: Metadata) -> list[tuple[str, ...]]:
    rows = []
    for kind, found in metadata.conditioning.items():
        figures = map(scientific, (found.min, found.max, found.condition_number, found.condition_ratio))
        rank = percent(found.effective_rank / metadata.entries)
        rows.append((kind, *figures, fixed(found.effective_rank), rank, str(found.zeros)))
    return rows


def _facts(metadata: Metadata) -> list[tuple[str, str]]:
    measured, backbone = metadata.measurement, metadata.backbone
    program = f"anchored {metadata.code.version}, torch {metadata.libraries.get('torch', '?')}"
    facts = {
        "backbone": f"{backbone.name} ({backbone.anchor})",
        "architecture": _literal(backbone.architecture),
        **_weights(measured.facts),
        "backbone digest": backbone.digest,
        "input": f"mean {_literal(backbone.mean)}, std {_literal(backbone.std)}",
        "objective": measured.objective,
        "estimator": measured.estimator,
        "images": f"{measured.images} of {measured.bank}",
        "views": f"{measured.views.get('global_crops', '?')} global, {measured.views.get('local_crops', '?')} local an image",
        "backend, precision": f"{measured.backend}, {measured.precision}",
        "measured": f"{measured.date} on {measured.device}, {program}",
        "entries": f"{metadata.entries:,} in {metadata.tensors} tensors; trace {scientific(metadata.trace)}",
    }
    return list(facts.items())


def _weights(facts: Mapping[str, str]) -> dict[str, str]:
    """Whose weights an imported backbone has, as far as the measurement knew it."""
    return {key.replace("_", " "): value.replace("|", "\\|") for key, value in facts.items() if key.split("_")[0] == "weights"}


def _code(metadata: Metadata, with_backbone: bool) -> list[str]:
    """A training loop with the anchor; `loader` is the reader's, and `weights` where none are in the folder."""
    architecture = metadata.backbone.architecture
    weights = f'load_file(f"{{folder}}/{BACKBONE}")' if with_backbone else "weights"
    timm = architecture.get("family") == "timm"
    comment = "" if with_backbone else f"  # weights: your copy of {metadata.backbone.name}, a state dict"
    options = f', img_size={architecture["image"]}' if timm and architecture.get("image") else ""
    make = [
        f'model = timm.create_model("{architecture.get("name")}", num_classes=2{options})',
        f"model.load_state_dict({weights}, strict=False){comment}",
    ]
    if not timm:
        make = [f"model = build({_literal(architecture)})", f"model.load_state_dict({weights}){comment}"]
        make += ["model.reset_classifier(2)"]
    return [
        *(["import timm"] if timm else []),
        "import torch",
        "import torch.nn.functional as F",
        *(["from safetensors.torch import load_file"] if with_backbone else []),
        "",
        *([] if timm else ["from anchored.backbones.build import build"]),
        "from anchored.finetune import Anchor",
        "from anchored.fisher import condition, load_fisher",
        "",
        f'folder = "{metadata.name}"  # where this folder is',
        *make,
        'penalty = Anchor(model, condition(load_fisher(folder, model), "normalise"), strength=1.0)',
        "optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)",
        "for images, labels in loader:  # yours",
        "    optimizer.zero_grad()",
        "    F.cross_entropy(model(images), labels).backward()",
        "    penalty.add_gradient()",
        "    optimizer.step()",
    ]


def _literal(value: Any) -> str:
    """A JSON value as Python and the reader write it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f'"{key}": {_literal(part)}' for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _licence(licence: str | None) -> str:
    own = f"`{licence}`; see LICENSE." if licence else "None was stated: ask whoever published it before you pass it on."
    return f"{own} The licences of the backbone and of the images that it saw remain what they are."
