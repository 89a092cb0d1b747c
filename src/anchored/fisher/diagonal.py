"""The diagonal Fisher of a model under a loss that has one value per image.

    F = (1/N) sum_n (d loss_n / d theta)^2         element-wise

loss_n is the loss of image n over all its views: they are added before the square. Whether F is the true Fisher (labels drawn from
the model's own prediction) or the squared gradient of the training loss (the "empirical" Fisher) is decided by the loss, not here.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anchored.errors import ConfigError
from anchored.fisher.errors import BadBatch, ShapeMismatch, UncoveredParameters, listed
from anchored.fisher.guards import require_finite, require_fixed_function
from anchored.fisher.hooks import Hooks
from anchored.fisher.loop import Loop
from anchored.fisher.signs import Signs

Backend = Literal["auto", "hooks", "loop", "signs"]
Loss = Callable[[nn.Module, Any], Tensor]


def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    backend: Backend = "auto",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    first_image: int = 0,
    start: "DiagonalFisher | None" = None,
    on_batch: "Callable[[DiagonalFisher], None] | None" = None,
) -> "DiagonalFisher":
    """Measures the diagonal Fisher of the parameters of `model` that require gradients.

    Args:
        model: in eval mode, at the point where the Fisher is wanted. It is left as it was found, `.grad` included.
        batches: yields whatever `loss` takes; its leading dimension counts images, views come after it (see `batches.py`).
        loss: loss(model, batch) -> (B,), one value per image. Heads live in the closure. Where a batch is flattened to rows, all
            rows of an image must be neighbours ("image-major"): `views.flatten(0, 1)` of (B, V, ...) is.
        backend: "loop" is exact for any model; "hooks" is exact and batched, with a rule per layer type; "signs" is an unbiased
            estimate for any model at the price of training, its error in `.relative_errors`; "auto" takes hooks where every
            parameter has a rule and loop elsewhere, and says why in `.reason`.
        dtype: of the squares and their sums.
        seed: of the signs.
        first_image: index of the first image in the whole measurement, where `batches` is a part of it.
        start: what an interrupted call had measured; `batches` then begins with the first image that it had not.
        on_batch: called after each batch with the Fisher so far. Its sums go on changing: copy them, or write them to a file.

    Raises:
        TrainingMode: batch statistics or dropout are on.
        UncoveredParameters: backend="hooks" has no rule for some parameters; lists all of them.
        ShapeMismatch: `start` is no part of a measurement of this model.
        CoupledImages: the loss of one image depends on rows of another (hooks only).
        ChangedInPlace: the input of a layer was overwritten after the layer (hooks only).
        NumericalError: a loss or a sum is not finite; names the image or the parameter.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not names:
        raise UncoveredParameters("no parameter of the model requires a gradient.", "call requires_grad_() on those to measure.")
    require_fixed_function(model)
    engine, reason = _engine(model, names, backend, dtype, seed)
    before = start.count if start else 0
    count = before
    with torch.enable_grad():
        try:
            _continue(engine, start)
            for batch in batches:
                try:
                    count += engine.add(batch, loss, first_image + count)
                except UncoveredParameters as error:
                    if backend != "auto" or count > before:
                        raise
                    engine.close()
                    engine, reason = Loop(model, names, dtype), error.message
                    _continue(engine, start)
                    count += engine.add(batch, loss, first_image + count)
                if on_batch is not None:
                    on_batch(_result(engine, count, reason))
        finally:
            engine.close()
    if not count:
        raise BadBatch("there was no image to measure the Fisher on.", "check the data set and the range of images.")
    require_finite(engine.sums)
    return _result(engine, count, reason)


@dataclass(frozen=True, eq=False)
class DiagonalFisher(Mapping[str, Tensor]):
    """Maps parameter names to F, in the order of `named_parameters()`.

    Args:
        sums: sum over images of the squared gradients; `fisher[name] = sums[name] / count`. Sums of disjoint images add.
        count: number of images N.
        backend: "hooks", "loop" or "signs".
        reason: why this backend was taken.
        variances: of an estimate, per tensor: sum over its entries of the variance that `checked` images add to `sums`
            (`signs.py`). Empty for the exact backends.
        checked: number of images that the variances come from.
    """

    sums: Mapping[str, Tensor]
    count: int
    backend: str
    reason: str = ""
    variances: Mapping[str, float] = field(default_factory=dict)
    checked: int = 0

    @property
    def relative_errors(self) -> dict[str, float]:
        """Standard error of each tensor of an estimate, sqrt(E |F - true F|^2) / |F|; empty for the exact backends.

        F is that of these very images: how far another draw of images would be is not in it.
        """
        if not self.checked:
            return {}
        norms = {name: float(torch.linalg.vector_norm(self.sums[name], dtype=torch.float64)) for name in self.variances}
        scale = self.count / self.checked
        return {name: math.sqrt(value * scale) / norms[name] if norms[name] else 0.0 for name, value in self.variances.items()}

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
        _require_same_parameters(parts[0], part, f"part {index} of the Fisher")
        for name, total in sums.items():
            total += part.sums[name]
    backends = "+".join(dict.fromkeys(part.backend for part in parts))
    checked = sum(part.checked for part in parts)
    variances = {name: sum(part.variances.get(name, 0.0) for part in parts) for name in sums} if checked else {}
    return DiagonalFisher(sums, sum(part.count for part in parts), backends, parts[0].reason, variances, checked)


def _require_same_parameters(first: DiagonalFisher, part: DiagonalFisher, what: str) -> None:
    different = sorted(first.sums.keys() ^ part.sums.keys())
    different += [n for n in first.sums if n in part.sums and first.sums[n].shape != part.sums[n].shape]
    if different:
        raise ShapeMismatch(
            f"{what} does not fit the rest; they differ in {listed(different)}.",
            "merge only parts measured on one model.",
        )


Engine = Hooks | Loop | Signs


def _engine(model: nn.Module, names: Sequence[str], backend: str, dtype: torch.dtype, seed: int) -> tuple[Engine, str]:
    if backend == "loop":
        return Loop(model, names, dtype), "asked for"
    if backend == "hooks":
        return Hooks(model, names, dtype), "asked for"
    if backend == "signs":
        return Signs(model, names, dtype, seed), "asked for"
    if backend != "auto":
        raise ConfigError(f"there is no Fisher backend '{backend}'.", "choose 'auto', 'hooks', 'loop' or 'signs'.")
    try:
        return Hooks(model, names, dtype), "every parameter has a rule"
    except UncoveredParameters as error:
        return Loop(model, names, dtype), error.message


def _continue(engine: Engine, start: DiagonalFisher | None) -> None:
    """Puts the sums of `start` where the engine adds its own."""
    if start is None:
        return
    _require_same_parameters(DiagonalFisher(engine.sums, 0, engine.name), start, "what was measured before")
    for name, total in engine.sums.items():
        total.copy_(start.sums[name])
    if isinstance(engine, Signs) and start.variances:
        engine.checked = start.checked
        engine.variances.copy_(torch.tensor([start.variances[name] for name in engine.sums], dtype=torch.float64))


def _result(engine: Engine, count: int, reason: str) -> DiagonalFisher:
    if isinstance(engine, Signs):
        variances = dict(zip(engine.sums, engine.variances.tolist(), strict=True))
        return DiagonalFisher(engine.sums, count, engine.name, reason, variances, engine.checked)
    return DiagonalFisher(engine.sums, count, engine.name, reason)
