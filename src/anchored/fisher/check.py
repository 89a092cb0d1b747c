"""Is `hooks` exact for this architecture? Compared with the loop, tensor by tensor, in float64.

    error(p) = max |F_hooks(p) - F_loop(p)| / max |F_loop(p)|

Parameters are random, because timm starts many branches at zero, where every error hides. The smallest input that the model takes
is used: exactness does not depend on the size. A tensor whose gradient is zero by symmetry (the bias of a key in softmax attention)
is rounding noise in both; where they disagree below `NOISE` of the largest gradient of the model, that bound takes the place of
max |F_loop(p)|, and the tensor is named.
"""

import difflib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from anchored.compat import prepare_torchvision
from anchored.errors import ConfigError, NumericalError
from anchored.fisher.errors import ChangedInPlace, CoupledImages, UncoveredParameters
from anchored.fisher.guards import forget_cached_parameters
from anchored.fisher.hooks import Hooks
from anchored.fisher.loop import Loop

TOLERANCE = 1e-9
NOISE = 1e-9
VIEWS = 2
_SIZES = (64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 384, 448, 512)


@dataclass(frozen=True)
class Check:
    """What was found for one model.

    backend: "hooks" or "loop". error, worst: the largest relative error and the tensor that has it. refusal: why hooks cannot
    vouch for the model, parameters by name; empty if it can. unused: parameters that the features do not depend on. silent: those
    whose gradient is rounding noise.
    """

    name: str
    family: str
    size: int
    parameters: int
    covered: int
    backend: str
    error: float = 0.0
    worst: str = ""
    over_loop: float = 0.0
    over_plain: float = 0.0
    refusal: str = ""
    unused: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether the numbers of this backend can be relied on."""
        return self.error <= TOLERANCE and not (self.refusal and self.backend == "hooks")

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.backend == "loop":
            return "loop (asked for)" if self.exact else "MISS"
        return "refused" if self.refusal else "exact" if self.exact else "MISS"


def check_models(names: Sequence[str], *, images: int = 3, fallback: str = "") -> Iterator[Check]:
    """One `Check` a model, in order.

    Args:
        names: of timm.
        images: in the batch, each with two views.
        fallback: "loop" computes models without full coverage by the loop.

    Raises:
        ConfigError: timm has no such model (with the nearest names), or cannot build it.
    """
    if fallback not in ("", "loop"):
        raise ConfigError(f"there is no fallback '{fallback}'.", "the only one is 'loop'.")
    if images < 1:
        raise ConfigError(f"{images} images cannot be measured.", "give --images 2 or more.")
    _require_names(names)
    return (_check(name, images, fallback) for name in names)


def require_exact(checks: Iterable[Check]) -> None:
    """Raises unless every model came out exact.

    Raises:
        NumericalError: names the models that did not.
    """
    missed = [f"{check.name} ({check.verdict})" for check in checks if not check.exact]
    if missed:
        raise NumericalError(
            f"the batched Fisher is not exact for {', '.join(missed)}.",
            "use backend='loop' for these; `anchored fim-check --fallback loop` measures them so.",
        )


def check_table(checks: Sequence[Check]) -> str:
    """The table of `anchored fim-check`, and below it, by name, what is not covered."""
    from tabulate import tabulate

    rows = [
        [
            f"{check.family}/{check.name}",
            check.size,
            check.backend,
            f"{check.covered}/{check.parameters}",
            f"{check.error:.1e}" if check.over_plain else "",
            check.worst,
            f"{check.over_loop:.2f}" if check.over_loop else "",
            f"{check.over_plain:.2f}" if check.over_plain else "",
            check.verdict,
        ]
        for check in checks
    ]
    head = ["family/model", "px", "backend", "covered", "worst error", "in", "time / loop", "time / step", "verdict"]
    notes = [f"{check.name}: {check.refusal}" for check in checks if check.refusal]
    notes += [f"{check.name}: not used by its features, frozen: {', '.join(check.unused)}" for check in checks if check.unused]
    notes += [f"{check.name}: gradient zero up to rounding: {', '.join(check.silent)}" for check in checks if check.silent]
    return "\n\n".join([tabulate(rows, head, disable_numparse=True), *notes])


def build(name: str, **options: Any) -> tuple[nn.Module, int]:
    """The model without pre-trained weights and without head, and the smallest input size it takes.

    Raises:
        ConfigError: no size works; quotes what the model said.
    """
    prepare_torchvision()
    import timm

    said: Exception | None = None
    plain: nn.Module | None = None
    for size in _SIZES:
        for with_size in (True, False):
            try:
                if with_size:
                    model = timm.create_model(name, pretrained=False, num_classes=0, img_size=size, **options)
                else:
                    plain = plain or timm.create_model(name, pretrained=False, num_classes=0, **options)
                    model = plain
                with torch.no_grad():
                    model.eval()(torch.zeros(1, 3, size, size))
                return model, size
            except (RuntimeError, AssertionError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
                said = error
    raise ConfigError(f"{name} takes no square image of {_SIZES[0]} to {_SIZES[-1]} pixels: {said}", "it cannot be checked here.")


def randomised(model: nn.Module, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """Random parameters and statistics, in eval mode.

    timm starts the last norm of a residual branch at zero: every gradient inside would be zero, and every comparison pass.
    Matrices keep the scale of their input, so that no activation saturates.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Vectors of weights, and single numbers, scale what passes: around zero they would close the branch.
            vector = parameter.numel() == 1 or (parameter.ndim == 1 and name.endswith("weight"))
            matrix = parameter.ndim > 1 and name.endswith("weight")
            scale = min(0.2, (parameter.numel() / parameter.shape[0]) ** -0.5) if matrix else 0.2
            parameter.copy_((0.8 if vector else 0.0) + scale * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.to(dtype).eval()


def curved(out: Tensor, images: int) -> Tensor:
    """(images,): a loss with no symmetry, different for every output, not linear, and mixing the views of an image."""
    out = out.reshape(images, -1, out.shape[-1])
    weights = torch.linspace(-1, 1, out.shape[-1], dtype=out.dtype, device=out.device)
    return (out * weights).sum((1, 2)).sin() + (out.sum(1) ** 2).mean(1)


def features_loss(model: nn.Module, views: Tensor) -> Tensor:
    """`curved` of the features of (B, V, C, H, W); all outputs of a model that has several."""
    out = model(views.flatten(0, 1))
    outs = out if isinstance(out, tuple | list) else [out]
    return sum((curved(part.flatten(1), len(views)) for part in outs), torch.zeros(()))


def relative_errors(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[dict[str, float], list[str]]:
    """Per tensor, see the formula above; and the tensors whose gradient is zero up to rounding, or zero."""
    floor = max((float(tensor.max()) for tensor in expected.values()), default=0.0) * NOISE**2
    errors, silent = {}, []
    for name, tensor in expected.items():
        difference, largest = float((actual[name] - tensor).abs().max()), float(tensor.max())
        # Small gradients that agree are no noise, however small.
        if largest <= floor and difference > TOLERANCE * largest:
            largest = floor
            silent.append(name)
        elif not largest:
            silent.append(name)
        errors[name] = difference / largest if difference else 0.0
    return errors, silent


class Comparison(NamedTuple):
    """Errors of hooks against the loop by tensor, tensors without a gradient, and the time of hooks over two others."""

    errors: dict[str, float]
    silent: list[str]
    over_loop: float
    over_plain: float


def compare(model: nn.Module, batch: Tensor, loss: Callable[[nn.Module, Any], Tensor]) -> Comparison:
    """Measures `batch` by hooks, by the loop, and by an ordinary forward and backward pass.

    Raises:
        UncoveredParameters: hooks cannot vouch for the model.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    hooks, loop = Hooks(model, names, torch.float64), Loop(model, names, torch.float64)
    with torch.enable_grad():
        try:
            hooks.add(batch, loss, 0)
            sums = {name: total.clone() for name, total in hooks.sums.items()}
            batched = min(_timed(lambda: hooks.add(batch, loss, 0)) for _ in range(2))
        finally:
            hooks.close()
        one_by_one = _timed(lambda: loop.add(batch, loss, 0))
        loop.close()
        step = min(_timed(lambda: _gradients(model, batch, loss)) for _ in range(2))
    return Comparison(*relative_errors(sums, loop.sums), batched / one_by_one, batched / step)


def freeze_unused(model: nn.Module, batch: Tensor, loss: Callable[[nn.Module, Any], Tensor]) -> list[str]:
    """Freezes the parameters that the loss does not depend on, and names them."""
    unused = [name for name, gradient in _gradients(model, batch[:1], loss).items() if gradient is None]
    for name in unused:
        model.get_parameter(name).requires_grad_(False)
    return unused


def _gradients(model: nn.Module, batch: Tensor, loss: Callable[[nn.Module, Any], Tensor]) -> dict[str, Tensor | None]:
    """An ordinary backward pass."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    forget_cached_parameters(model)
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(model, batch).sum(), list(named.values()), allow_unused=True)
    forget_cached_parameters(model)
    return dict(zip(named, gradients, strict=True))


def _check(name: str, images: int, fallback: str) -> Check:
    with _quiet():
        model, size = build(name)
    family = type(model).__module__.rpartition(".")[2]
    model = randomised(model)
    batch = torch.randn(images, VIEWS, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    unused = freeze_unused(model, batch, features_loss)
    total = sum(1 for parameter in model.parameters() if parameter.requires_grad)
    try:
        result = compare(model, batch, features_loss)
    except (UncoveredParameters, CoupledImages, ChangedInPlace) as error:
        covered = total - len(error.names) if isinstance(error, UncoveredParameters) else 0
        found = Check(name, family, size, total, covered, "hooks", refusal=error.message, unused=unused)
        return found if not fallback else _by_loop(found, model, batch)
    worst = max(result.errors, key=result.errors.__getitem__)
    return Check(
        name, family, size, total, total, "hooks", result.errors[worst], worst, result.over_loop, result.over_plain,
        unused=unused, silent=result.silent,
    )  # fmt: skip


def _by_loop(found: Check, model: nn.Module, batch: Tensor) -> Check:
    """The whole model by the loop, never a mixture."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    loop = Loop(model, names, torch.float64)
    with torch.enable_grad():
        seconds = _timed(lambda: loop.add(batch, features_loss, 0))
    step = _timed(lambda: _gradients(model, batch, features_loss))
    loop.close()
    return Check(
        found.name, found.family, found.size, found.parameters, found.parameters, "loop",
        over_loop=1.0, over_plain=seconds / step, refusal=found.refusal, unused=found.unused,
    )  # fmt: skip


def _require_names(names: Sequence[str]) -> None:
    prepare_torchvision()
    import timm

    for name in names:
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(near)}?" if near else "`timm.list_models()` lists all."
            raise ConfigError(f"timm has no model '{name}'.", hint)


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def _quiet() -> Iterator[None]:
    """For timm, which prints and warns while it tries sizes."""
    import logging
    import warnings

    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
