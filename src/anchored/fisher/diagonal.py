"""The diagonal Fisher of a model under a loss that has one value per image.

    F = (1/N) sum_n (d loss_n / d theta)^2         element-wise

loss_n is the loss of image n over all its views: they are added before the square. Whether F is the true Fisher (labels drawn from
the model's own prediction) or the squared gradient of the training loss (the "empirical" Fisher) is decided by the loss, not here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anchored.errors import ConfigError
from anchored.fisher.errors import BadBatch, ShapeMismatch, UncoveredParameters
from anchored.fisher.guards import require_finite, require_fixed_function
from anchored.fisher.hooks import Hooks
from anchored.fisher.loop import Loop

Backend = Literal["auto", "hooks", "loop"]
Loss = Callable[[nn.Module, Any], Tensor]


def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    backend: Backend = "auto",
    dtype: torch.dtype = torch.float32,
    on_batch: Callable[[int], None] | None = None,
) -> "DiagonalFisher":
    """Measures the diagonal Fisher of the parameters of `model` that require gradients.

    Args:
        model: in eval mode, at the point where the Fisher is wanted. It is left as it was found, `.grad` included.
        batches: yields whatever `loss` takes; its leading dimension counts images, views come after it (see `batches.py`).
        loss: loss(model, batch) -> (B,), one value per image. Heads live in the closure. Where a batch is flattened to rows, all
            rows of an image must be neighbours ("image-major"): `views.flatten(0, 1)` of (B, V, ...) is.
        backend: "loop" is exact for any model; "hooks" is exact and batched, with a rule per layer type; "auto" takes hooks where
            every parameter has a rule and loop elsewhere, and says why in `.reason`.
        dtype: of the squares and their sums.
        on_batch: called after each batch with the number of images so far.

    Raises:
        TrainingMode: batch statistics or dropout are on.
        UncoveredParameters: backend="hooks" has no rule for some parameters; lists all of them.
        CoupledImages: the loss of one image depends on rows of another (hooks only).
        ChangedInPlace: the input of a layer was overwritten after the layer (hooks only).
        NumericalError: a loss or a sum is not finite; names the image or the parameter.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not names:
        raise UncoveredParameters("no parameter of the model requires a gradient.", "call requires_grad_() on those to measure.")
    require_fixed_function(model)
    engine, reason = _engine(model, names, backend, dtype)
    count = 0
    with torch.enable_grad():
        try:
            for batch in batches:
                try:
                    count += engine.add(batch, loss, count)
                except UncoveredParameters as error:
                    if backend != "auto" or count:
                        raise
                    engine.close()
                    engine, reason = Loop(model, names, dtype), error.message
                    count += engine.add(batch, loss, count)
                if on_batch is not None:
                    on_batch(count)
        finally:
            engine.close()
    if not count:
        raise BadBatch("there was no image to measure the Fisher on.", "check the data set and the range of images.")
    require_finite(engine.sums)
    return DiagonalFisher(engine.sums, count, engine.name, reason)


@dataclass(frozen=True, eq=False)
class DiagonalFisher(Mapping[str, Tensor]):
    """Maps parameter names to F, in the order of `named_parameters()`.

    Args:
        sums: sum over images of the squared gradients; `fisher[name] = sums[name] / count`. Sums of disjoint images add.
        count: number of images N.
        backend: "hooks" or "loop".
        reason: why this backend was taken.
    """

    sums: Mapping[str, Tensor]
    count: int
    backend: str
    reason: str = ""

    def __getitem__(self, name: str) -> Tensor:
        return self.sums[name] / self.count

    def __iter__(self) -> Iterator[str]:
        return iter(self.sums)

    def __len__(self) -> int:
        return len(self.sums)

    def merge(self, *others: "DiagonalFisher") -> "DiagonalFisher":
        """The Fisher of all images of `self` and `others`; sums are added in the order given, so the result has fixed bits."""
        return merge([self, *others])


def merge(parts: Sequence[DiagonalFisher]) -> DiagonalFisher:
    """Adds the sums of `parts`, which saw disjoint images of one model, from left to right.

    Raises:
        ShapeMismatch: two parts cover different parameters or shapes.
    """
    if not parts:
        raise BadBatch("there is no part to merge.", "give at least one.")
    sums = {name: total.clone() for name, total in parts[0].sums.items()}
    for index, part in enumerate(parts[1:], start=1):
        _require_same_parameters(parts[0], part, index)
        for name, total in sums.items():
            total += part.sums[name]
    backends = "+".join(dict.fromkeys(part.backend for part in parts))
    return DiagonalFisher(sums, sum(part.count for part in parts), backends, parts[0].reason)


def _require_same_parameters(first: DiagonalFisher, part: DiagonalFisher, index: int) -> None:
    different = sorted(first.sums.keys() ^ part.sums.keys())
    different += [n for n in first.sums if n in part.sums and first.sums[n].shape != part.sums[n].shape]
    if different:
        raise ShapeMismatch(
            f"part {index} of the Fisher does not fit part 0; they differ in {', '.join(different)}.",
            "merge only parts measured on one model.",
        )


def _engine(model: nn.Module, names: Sequence[str], backend: str, dtype: torch.dtype) -> tuple[Hooks | Loop, str]:
    if backend == "loop":
        return Loop(model, names, dtype), "asked for"
    if backend == "hooks":
        return Hooks(model, names, dtype), "asked for"
    if backend != "auto":
        raise ConfigError(f"there is no Fisher backend '{backend}'.", "choose 'auto', 'hooks' or 'loop'.")
    try:
        return Hooks(model, names, dtype), "every parameter has a rule"
    except UncoveredParameters as error:
        return Loop(model, names, dtype), error.message
