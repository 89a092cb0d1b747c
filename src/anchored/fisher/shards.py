"""Parts of a measurement on disk: sums over a range of images, and all that has to be equal before two may be added.

A part says what it was measured with (backbone digest, objective, estimator, image list, views, precision, backend, ...) and which
images: [start, stop) of the list. Parts are added in the order of their images, so the merged Fisher has fixed bits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors

from anchored.errors import InputError
from anchored.fisher.diagonal import DiagonalFisher, merge
from anchored.fisher.errors import ForeignFisher, listed
from anchored.fisher.io import load_shard, save_shard

# What belongs to a part alone; everything else that two parts say has to be equal.
_OWN = ("count", "content", "start", "stop", "names", "variances", "checked", "reason", "precision_errors")


@dataclass(frozen=True)
class Part:
    """The sums over the images [start, stop) of a list of `total`.

    Args:
        fisher: sums and count.
        facts: what was measured, as in the file of a whole Fisher.
        start: first image.
        stop: one behind the last.
        total: length of the list.
        precision_errors: by tensor, of the part that measured them.
    """

    fisher: DiagonalFisher
    facts: Mapping[str, str]
    start: int
    stop: int
    total: int
    precision_errors: Mapping[str, float]


def save_part(path: Path, part: Part) -> None:
    """Writes `part`, whole or not at all; raises as `save_shard` does."""
    own = {
        "start": str(part.start),
        "stop": str(part.stop),
        "total": str(part.total),
        # A file sorts its tensors; cards list them in the order of the model.
        "names": json.dumps(list(part.fisher.sums)),
        "variances": json.dumps(dict(part.fisher.variances)),
        "checked": str(part.fisher.checked),
        "reason": part.fisher.reason,
        "precision_errors": json.dumps(dict(part.precision_errors)),
    }
    save_shard(path, part.fisher, metadata={**part.facts, **own})


def load_part(path: Path) -> Part:
    """Reads a file of `save_part`.

    Raises:
        InputError: missing, truncated, not a part, or with entries that no sum of squares can have.
    """
    fisher = load_shard(path)
    with safetensors.safe_open(path, framework="pt") as stream:
        metadata = dict(stream.metadata())
    try:
        start, stop, total, checked = (int(metadata[key]) for key in ("start", "stop", "total", "checked"))
        names, variances, errors = (json.loads(metadata[key]) for key in ("names", "variances", "precision_errors"))
        sums = {name: fisher.sums[name] for name in names}
    except (KeyError, ValueError) as error:
        hint = "remove it and measure it again with `anchored fim`."
        raise InputError(f"{path} does not say which images it holds.", hint) from error
    # In a fixed order: safetensors gives the metadata in that of a randomly seeded hash map.
    facts = {key: value for key, value in sorted(metadata.items()) if key not in (*_OWN, "total", "backend")}
    measured = DiagonalFisher(sums, fisher.count, fisher.backend, metadata.get("reason", ""), variances, checked)
    return Part(measured, facts, start, stop, total, errors)


def merge_parts(parts: Mapping[Path, Part]) -> tuple[DiagonalFisher, dict[str, str], dict[str, float]]:
    """The Fisher of the whole list, what was measured, and the precision errors.

    Args:
        parts: by file, which errors name; in any order.

    Raises:
        ForeignFisher: two parts differ in what they measured; names the files and every fact that differs.
        InputError: the ranges overlap, leave images out, or do not end with the list.
    """
    ordered = sorted(parts.items(), key=lambda item: (item[1].start, item[1].stop))
    _require_same_measurement(ordered)
    _require_partition(ordered)
    errors = next((dict(part.precision_errors) for _, part in ordered if part.precision_errors), {})
    return merge([part.fisher for _, part in ordered]), dict(ordered[0][1].facts), errors


def _require_same_measurement(ordered: Sequence[tuple[Path, Part]]) -> None:
    path, first = ordered[0]
    for other_path, other in ordered[1:]:
        ours, theirs = _said(first), _said(other)
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if different:
            said = [f"{key} ({ours.get(key, 'not said')} and {theirs.get(key, 'not said')})" for key in different]
            raise ForeignFisher(
                f"{path} and {other_path} are no parts of one measurement: they differ in {listed(said)}.",
                "remove the one that is stale and measure it again with `anchored fim FIM --shard I/N`.",
            )


def _said(part: Part) -> dict[str, str]:
    return {**part.facts, "backend": part.fisher.backend, "length of the image list": str(part.total)}


def _require_partition(ordered: Sequence[tuple[Path, Part]]) -> None:
    reached = 0
    for path, part in ordered:
        if part.start != reached or part.stop - part.start != part.fisher.count:
            raise InputError(
                f"{path} holds {part.fisher.count} images, {part.start} to {part.stop}, where those from {reached} on are needed.",
                "every image has to be in exactly one part: merge all shards of one plan, each once.",
            )
        reached = part.stop
    total = ordered[-1][1].total
    if reached != total:
        raise InputError(f"the parts end with image {reached}, the list has {total}.", "measure the missing shards first.")
