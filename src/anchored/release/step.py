"""`anchored fim-release`: from a measured FIM to a folder for others. Whole or absent; the same FIM gives the same bytes."""

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from anchored.backbones.checkpoint import load_anchor
from anchored.backbones.features import channel_statistics
from anchored.diagnostics.figures import layers_figure
from anchored.diagnostics.summary import Summary, summarise
from anchored.errors import ConfigError, InputError
from anchored.files import disk_failure, file_digest, folder_beside, read_json, replace_folder, write_bytes, write_text
from anchored.fisher import LoadedFisher, load_fisher
from anchored.fisher.folder import BACKBONE, CARD, FIM, METADATA, SUMS, checksums, read_checksums
from anchored.locks import exclusive
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.release.card import card, licence_text
from anchored.release.metadata import Backbone, Code, Measurement, Metadata, Uneven, read_metadata, text
from anchored.report.figures import draw

log = logging.getLogger("anchored")

_LICENCE = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def fim_release(
    plan: Plan,
    name: str,
    folder: Path,
    paths: Paths,
    *,
    licence: str | None = None,
    with_backbone: bool = False,
    force: bool = False,
) -> None:
    """Publishes the FIM `name` as `folder`.

    Args:
        plan: the compiled plan.
        name: identity of the FIM.
        folder: where to; new, empty, or an earlier release.
        paths: the folder layout.
        licence: SPDX identifier or expression.
        with_backbone: also copy the weights at the anchor.
        force: replace an earlier, different release.

    Raises:
        ConfigError: `folder` holds something else, or `licence` is no SPDX expression.
        InputError: the FIM, its record or its backbone is missing or changed.
        ForeignFisher: the backbone is not the one that was measured.
    """
    lookup(plan, "fims", name)
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise ConfigError(f"'{licence}' is no SPDX licence expression.", "for example CC-BY-4.0, or Apache-2.0 OR MIT.")
    typed, folder = folder, folder.absolute()
    _require_ours(folder)
    with exclusive(f"fim-release {name}", paths), folder_beside(folder) as built:
        record, backbone, fisher, anchor = _read(name, paths)
        summary = summarise(fisher)
        _copy(paths.fim(name) / FIM, built / FIM)
        if with_backbone:
            state = {key: value.detach().cpu().contiguous() for key, value in anchor.state_dict().items()}
            write_bytes(built / BACKBONE, safetensors.torch.save(state, metadata={"format": "pt"}))
        metadata = _metadata(name, record, backbone, fisher, summary, licence, built)
        write_text(built / METADATA, text(metadata))
        write_text(built / CARD, card(metadata, with_backbone=with_backbone))
        if licence:
            write_text(built / "LICENSE", licence_text(metadata))
        svg, png = draw(lambda: layers_figure(summary, title=f"Entries of F: {name}"))
        write_bytes(built / "spectrum.svg", svg)
        write_bytes(built / "spectrum.png", png)
        write_text(built / SUMS, checksums(built, [path.name for path in built.iterdir()]))
        if folder.is_dir() and _contents(folder) == _contents(built):
            log.info("fim-release %s: nothing to do, %s is up to date", name, typed)
            return
        if folder.is_dir() and any(folder.iterdir()) and not force:
            raise ConfigError(f"{folder} holds another release.", "pass --force to replace it, or choose another folder.")
        replace_folder(built, folder)
    log.info("fim-release %s: %d files in %s", name, len(_contents(folder)), typed)


def _read(name: str, paths: Paths) -> tuple[dict[str, Any], dict[str, Any], LoadedFisher, nn.Module]:
    """The records of the FIM and of its backbone, the FIM and its anchor; all belong together."""
    source = paths.fim(name)
    record = read_json(source / "record.json", made_by=f"anchored fim {name}")
    made = {Path(path).name: digest for path, digest in record["outputs"].items()}
    if not (source / FIM).is_file():
        raise InputError(f"{source / FIM} is missing.", f"run `anchored fim {name}`.")
    if made.get(FIM) != file_digest(source / FIM):
        raise InputError(f"{source / FIM} differs from its record: it was changed or damaged.", f"run `anchored fim {name}`.")
    backbone = paths.backbone(record["entry"]["backbone"])
    made_by = f"anchored pretrain {backbone.name}"
    made_from = read_json(backbone / "record.json", made_by=made_by)
    anchor, _ = load_anchor(backbone / "model.safetensors", made_from["entry"], made_by=made_by)
    return record, made_from, load_fisher(source / FIM, anchor), anchor


def _metadata(
    name: str,
    record: Mapping[str, Any],
    backbone: Mapping[str, Any],
    fisher: LoadedFisher,
    summary: Summary,
    licence: str | None,
    built: Path,
) -> Metadata:
    entry, code = record["entry"], record["code"]
    mean, std = channel_statistics(backbone["entry"])
    weights = {Path(path).name: digest for path, digest in backbone["outputs"].items()}
    uneven = {
        kind: Uneven(**{key: getattr(found, key) for key in Uneven.model_fields}) for kind, found in summary.conditioned.items()
    }
    return Metadata(
        name=name,
        backbone=Backbone(
            name=entry["backbone"],
            architecture=backbone["entry"]["architecture"],
            anchor=backbone["entry"]["anchor"],
            digest=fisher.backbone_digest,
            checkpoint_sha256=weights["model.safetensors"],
            mean=list(mean),
            std=list(std),
            weights=backbone["entry"].get("weights"),
        ),
        measurement=Measurement(
            objective=fisher.objective,
            estimator=fisher.estimator,
            images=fisher.count,
            bank=entry["bank"],
            bank_manifest_sha256=fisher.metadata["bank_digest"],
            image_list_sha256=fisher.metadata["images_digest"],
            seed=entry["seed"],
            views=entry["views"],
            backend=fisher.metadata["backend"],
            precision=entry["precision"],
            date=record["started"],
            device=record["device"],
            facts={key: fisher.metadata[key] for key in sorted(fisher.metadata)},
        ),
        tensors=len(fisher),
        entries=summary.raw.entries,
        trace=summary.raw.trace,
        conditioning=uneven,
        code=Code(**{key: code.get(key) for key in Code.model_fields}),
        libraries=record["libraries"],
        licence=licence,
        files={path: file_digest(built / path) for path in (BACKBONE, FIM) if (built / path).is_file()},
    )


def _require_ours(folder: Path) -> None:
    """A folder that is new, empty, or an earlier release; nothing of anybody else is ever replaced."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder} is no folder.", "choose another one.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        listed = {*read_checksums(folder), SUMS}
        read_metadata(folder / METADATA)
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in listed)
    except InputError:
        foreign = sorted(path.name for path in folder.iterdir())
    if foreign:
        raise ConfigError(f"{folder} holds files of somebody else: {', '.join(foreign[:3])}.", "choose a new or an empty folder.")


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise disk_failure(target, error) from error


def _contents(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in folder.iterdir()}
