"""A Fisher on disk: one safetensors file, F = sums / count under the names of the parameters, and text metadata.

    count, backend, content        written here ("content" is "fisher", or "sums" for the shard of a measurement)
    estimator, objective, backbone_digest, ...        the caller's

The same Fisher gives the same bytes in every process. A file is whole or absent. Read together with a model, it comes back under
the model's own names (`names.py`), and only if it was measured at the very values that the model has.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from anchored.errors import ConfigError, InputError
from anchored.files import write_bytes
from anchored.fisher.diagonal import DiagonalFisher
from anchored.fisher.digest import backbone_digest
from anchored.fisher.errors import ForeignFisher, MissingFisher, ShapeMismatch, listed
from anchored.fisher.folder import check_release
from anchored.fisher.heads import Head, head_parameters
from anchored.fisher.names import LAYOUTS, Conversion, conversions, misfit

_RESERVED = ("backend", "content", "count")


@dataclass(frozen=True, eq=False)
class LoadedFisher(Mapping[str, Tensor]):
    """A stored Fisher: parameter names to F, raw, and what the file says about it.

    Args:
        tensors: F, without conditioning.
        count: number of images it was measured on.
        estimator: "sampled" (true Fisher) or "teacher" (squared SSL gradient); empty if the file does not say.
        objective: the loss; empty if the file does not say.
        backbone_digest: digest of the parameters it was measured at; empty if the file does not say.
        metadata: everything the file says, these included.
        free: trainable parameters of the model that have no Fisher because they are new: its classifier or SSL head.
        conversion: from which layout to which the names were converted; empty if they were not.
    """

    tensors: Mapping[str, Tensor]
    count: int
    estimator: str = ""
    objective: str = ""
    backbone_digest: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    free: tuple[str, ...] = ()
    conversion: str = ""

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def save_fisher(path: str | Path, fisher: DiagonalFisher, *, metadata: Mapping[str, str]) -> None:
    """Writes the raw F of `fisher` to `path`.

    Args:
        path: its folder is created.
        fisher: as measured.
        metadata: text to keep beside it; "estimator", "objective" and "backbone_digest" come back as attributes.

    Raises:
        ConfigError: `metadata` uses a reserved key, or a value that is no text.
        EnvironmentFailure: the disk is full or the folder not writable; nothing is left behind.
    """
    _write(Path(path), dict(fisher), fisher, "fisher", metadata)


def load_fisher(path: str | Path, model: nn.Module | None = None, *, head: Head = None) -> LoadedFisher:
    """Reads a Fisher and, given a model, makes sure that it belongs to it and puts it under the model's names.

    Args:
        path: a file of `save_fisher`, or a folder of `anchored fim-release`, whose checksums are then compared.
        model: the backbone at the anchor, in the layout of timm, torchvision or the original DINO code, with or without a new
            classifier, alone or in a wrapper. Every parameter of the backbone that requires a gradient needs an entry of its
            shape, and the parameters that the file covers must have the digest in its metadata (if it has one).
        head: names of the modules of the model that are new and therefore have no Fisher; None: the classifier that a timm or
            torchvision model points at, and what stands beside the backbone in a wrapper.

    Raises:
        InputError: no such file, no safetensors, truncated, a shard, a release with a changed file, or entries that are NaN,
            infinite or negative.
        MissingFisher: lists all parameters of the model without an entry.
        ShapeMismatch: gives the parameter and both shapes.
        ForeignFisher: the entries belong to other parameters, or to other values of them.
        ConfigError: the model has no part of a name in `head`.
    """
    path = Path(path)
    if path.is_dir():
        path = check_release(path)
    tensors, metadata = _read(path, "fisher")
    free: tuple[str, ...] = ()
    conversion = ""
    if model is not None:
        tensors, free, conversion = _for_model(path, tensors, metadata, model, head)
    return LoadedFisher(
        tensors,
        int(metadata["count"]),
        metadata.get("estimator", ""),
        metadata.get("objective", ""),
        metadata.get("backbone_digest", ""),
        metadata,
        free,
        conversion,
    )


def save_shard(path: str | Path, fisher: DiagonalFisher, *, metadata: Mapping[str, str]) -> None:
    """Writes the sums of a part of the images: `merge` adds shards without the rounding of a division."""
    _write(Path(path), dict(fisher.sums), fisher, "sums", metadata)


def load_shard(path: str | Path) -> DiagonalFisher:
    """Reads a file of `save_shard`; raises as `load_fisher` does."""
    sums, metadata = _read(Path(path), "sums")
    return DiagonalFisher(sums, int(metadata["count"]), metadata.get("backend", ""), f"read from {path}")


def _write(path: Path, tensors: dict[str, Tensor], fisher: DiagonalFisher, content: str, metadata: Mapping[str, str]) -> None:
    reserved = [key for key in metadata if key in _RESERVED]
    if reserved:
        raise ConfigError(f"metadata of a Fisher cannot set {listed(reserved)}.", "these are written from the Fisher itself.")
    no_text = [key for key, value in metadata.items() if not isinstance(value, str)]
    if no_text:
        raise ConfigError(f"metadata of a Fisher must be text, but {listed(no_text)} is not.", "convert it with str().")
    described = {**metadata, "backend": fisher.backend, "content": content, "count": str(fisher.count)}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, _with_sorted_header(safetensors.torch.save(contiguous, metadata=described)))


def _with_sorted_header(data: bytes) -> bytes:
    """Safetensors writes metadata in the order of a randomly seeded hash map: other bytes in each process."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _read(path: Path, content: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    again = "remove it and measure the Fisher again with `anchored fim`."
    if not path.is_file():
        raise InputError(f"{path} is missing.", "run `anchored fim`, or check the path.")
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            metadata = dict(stream.metadata() or {})
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or no safetensors file: {error}.", again) from error
    if metadata.get("content") != content or not metadata.get("count", "").isdecimal():
        kinds = {"sums": "the shard of a Fisher", "fisher": "a whole Fisher"}
        found = kinds.get(metadata.get("content", ""), "no Fisher of this project")
        wanted = kinds[content]
        hint = "run `anchored fim-merge` on the shards first." if metadata.get("content") == "sums" else "check the path."
        raise InputError(f"{path} holds {found}, but {wanted} is needed.", hint)
    for name, tensor in tensors.items():
        if not bool((torch.isfinite(tensor) & (tensor >= 0)).all()):
            raise InputError(f"{path}: the Fisher of {name} has entries that are NaN, infinite or negative.", again)
    return tensors, metadata


def _for_model(
    path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str], model: nn.Module, head: Head
) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """The Fisher under the model's names, the parameters that need none, and what was converted."""
    parameters = dict(model.named_parameters())
    stored = metadata.get("backbone_digest")
    way = _way(path, tensors, parameters, stored)
    converted = way.to_model(tensors)
    new = head_parameters(model, converted, head)
    uncovered = [name for name, parameter in parameters.items() if parameter.requires_grad and name not in converted]
    missing = [name for name in uncovered if name not in new]
    if missing:
        raise MissingFisher(
            f"{path} has no Fisher for {listed(missing)}.",
            'measure it with these parameters requiring gradients, freeze them in the model, or name the new ones: head="...".',
        )
    for name, tensor in converted.items():
        if tensor.shape != parameters[name].shape:
            raise ShapeMismatch(
                f"{path}: the Fisher of {name} has shape {tuple(tensor.shape)}, the parameter {tuple(parameters[name].shape)}.",
                "load it with the backbone that it was measured on.",
            )
    found = _digest(way, tensors, parameters) if stored else stored
    if stored != found:
        raise ForeignFisher(
            f"fim mismatch: {path} was measured on backbone {str(stored)[:8]}…, the model is {str(found)[:8]}….",
            "run `anchored fim` for this backbone, or load the backbone of this Fisher: the anchor itself, not a fine-tuned one.",
        )
    return converted, tuple(uncovered), way.text


def _way(path: Path, tensors: dict[str, Tensor], parameters: Mapping[str, nn.Parameter], stored: str | None) -> Conversion:
    """How the names are converted. Of several networks in one model (DINO's student and teacher): a trained one, of this digest."""
    ways = conversions(tensors, parameters)
    if not ways:
        raise _foreign_names(path, tensors, parameters)
    if len(ways) > 1:
        ways = [way for way in ways if any(parameters[name].requires_grad for name in way.to_model(tensors))] or ways
    if len(ways) > 1 and stored:
        ways = [way for way in ways if _digest(way, tensors, parameters) == stored] or ways
    return ways[0]


def _digest(way: Conversion, tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> str:
    """Digest of the parameters that the Fisher covers, spelt as when it was measured."""
    spelt = way.to_fisher({name: parameter.detach() for name, parameter in parameters.items()})
    return backbone_digest({name: spelt[name] for name in tensors})


def _foreign_names(path: Path, tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> ForeignFisher:
    found = misfit(tensors, parameters)
    shown, more = found.missing[:5], len(found.missing) - 5
    near = f"the nearest name there is {found.nearest}; " if found.nearest else ""
    return ForeignFisher(
        f"fim mismatch: {path} covers {listed(shown)}{f' and {more} more' if more > 0 else ''}, which the model lacks "
        f"({len(found.missing)} of {found.entries} entries, in every layout known: {listed(layout.name for layout in LAYOUTS)}).",
        f"{near}load it with the backbone that it was measured on.",
    )
