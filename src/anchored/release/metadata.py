"""`metadata.json` of a published FIM: what was measured, where, on what, with what. Unknown keys are refused.

Every value comes from the records of the measurement; nothing depends on when or where the release is made.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from anchored.errors import InputError

Digest = str


class Part(BaseModel):
    """A section: immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Backbone(Part):
    """The network at the anchor."""

    name: str
    architecture: dict[str, Any]
    layout: str = "timm"
    anchor: str
    digest: Digest
    checkpoint_sha256: Digest
    mean: list[float]
    std: list[float]
    weights: dict[str, Any] | None


class Measurement(Part):
    """How F was measured. `image_list_sha256` is over the rows of the bank in order, as little-endian int64."""

    objective: str
    estimator: str
    images: int
    bank: str
    bank_manifest_sha256: Digest
    image_list_sha256: Digest
    seed: int
    views: dict[str, Any]
    backend: str
    precision: str
    date: str
    device: str
    facts: dict[str, str]


class Uneven(Part):
    """Statistics under one conditioning; `min` is over the non-zero entries."""

    min: float
    max: float
    condition_number: float
    condition_ratio: float
    effective_rank: float
    zeros: int


class Code(Part):
    """The program that measured."""

    version: str
    commit: str | None
    modified: bool | None
    digest: Digest


class Metadata(Part):
    """The whole file."""

    schema_version: Literal[1] = 1
    kind: Literal["anchored-fim"] = "anchored-fim"
    name: str
    backbone: Backbone
    measurement: Measurement
    tensors: int
    entries: int
    trace: float
    conditioning: dict[str, Uneven]
    code: Code
    libraries: dict[str, str]
    licence: str | None
    files: dict[str, Digest]


def read_metadata(path: Path) -> Metadata:
    """Reads and validates a `metadata.json`.

    Raises:
        InputError: it is missing, no JSON, or not of this form; names the first key at fault.
    """
    try:
        return Metadata.model_validate_json(path.read_text(), strict=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "fetch the release again.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: {where}: {first['msg']}.", "a newer version may have written it, or it was edited.") from error


def schema() -> dict[str, Any]:
    """The JSON schema of the file."""
    return Metadata.model_json_schema()


def text(metadata: Metadata) -> str:
    """The file's text; the same metadata gives the same bytes."""
    return json.dumps(metadata.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
