"""What has to hold for `mean_n (d loss_n / d theta)^2` to be defined, checked before, during and after the measurement."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from anchored.errors import NumericalError
from anchored.fisher.errors import BadLoss, TrainingMode, UncoveredParameters, listed


def require_fixed_function(model: nn.Module) -> None:
    """The loss of an image must depend on that image alone, and be the same each time.

    Raises:
        TrainingMode: names every module that uses batch statistics or draws random numbers.
    """
    coupling = [name or type(m).__name__ for name, m in model.named_modules() if _uses_batch_statistics(m)]
    if coupling:
        raise TrainingMode(
            f"batch statistics in {listed(coupling)} make the loss of an image depend on its batch; the Fisher is undefined.",
            "call model.eval() first; a BatchNorm without running statistics cannot be measured.",
        )
    random = [name or type(m).__name__ for name, m in model.named_modules() if _draws(m)]
    if random:
        raise TrainingMode(
            f"dropout is on in {listed(random)}; the Fisher would be that of a random network.",
            "call model.eval() first.",
        )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter of `model` requires a gradient inside; each does as before outside, whatever happens."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


def require_loss_per_image(losses: object, first_image: int, images: int | None = None) -> Tensor:
    """`losses` as a vector of finite values.

    Args:
        losses: what the loss function returned.
        first_image: index of its first image in the whole measurement.
        images: how many values there must be, where this is known.

    Raises:
        BadLoss: no vector, or the wrong number of values.
        NumericalError: NaN or infinite; names the first such image.
    """
    if not isinstance(losses, Tensor) or losses.ndim != 1 or (images is not None and len(losses) != images):
        got = f"shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        wanted = "(B,)" if images is None else f"({images},)"
        raise BadLoss(
            f"loss(model, batch) returned {got} where {wanted} is needed.",
            "return one value per image: averaged over its views, not over the batch.",
        )
    values = losses.detach()
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        index = int(bad[0])
        raise NumericalError(
            f"the loss of image {first_image + index} is {float(values[index])}.",
            "look at that image and at the parameters of the model; images are counted from 0 in the order of the batches.",
        )
    return losses


def require_dependence(depends: bool) -> None:
    """The loss must reach at least one parameter; a Fisher of zeros would be accepted by everything that follows.

    Raises:
        BadLoss: it does not.
    """
    if not depends:
        raise BadLoss(
            "the loss does not depend on any parameter of the model.",
            "check for a detach() or torch.no_grad() between the model and the loss.",
        )


def require_agreement(squares: Mapping[str, Tensor], truth: Mapping[str, Tensor], rounding: float) -> None:
    """What the rules made of the first image must be what autograd makes of it; nothing that a rule does not see stays unseen.

    Args:
        squares: by the rules.
        truth: by autograd; a parameter without an entry has no gradient.
        rounding: of the coarsest dtype in the network. Far larger differences are no rounding. In 16 bit autograd itself adds up
            to twice or half of a gradient over many tokens, so there only what has been lost is looked for.

    Raises:
        UncoveredParameters: lists the parameters that differ, and by how much.
    """
    tolerance, nothing = (1e-7, 1e-12) if rounding < 1e-10 else (2e-2, 1e-5) if rounding < 1e-5 else (0.9, 1e-2)
    # A gradient that is zero by symmetry, like that of the bias of a key, is rounding noise on both sides.
    largest = max((float(square.max()) for square in truth.values() if square.numel()), default=0.0)
    wrong = {}
    for name, square in squares.items():
        expected = truth.get(name, torch.zeros_like(square))
        scale = max(float(expected.max()), largest * nothing**2) if expected.numel() else 0.0
        if rounding < 1e-5:
            error = float((square - expected).abs().max()) / scale if scale else 0.0
        else:
            error = 1 - float(square.sum() / expected.sum()) if float(expected.max()) >= scale > 0 else 0.0
        if error > tolerance:
            wrong[name] = f"{name} (relative error {error:.1e})"
    if wrong:
        raise UncoveredParameters(
            f"the rules and autograd disagree on the first image for {len(wrong)} of {len(squares)} parameters: "
            f"{'; '.join(wrong.values())}.",
            'these parameters are used in a way that no rule sees; backend="loop" is exact for any model.',
            names=wrong,
        )


def forget_cached_parameters(model: nn.Module) -> None:
    """Empties caches of tensors computed from parameters: they belong to another graph, and to other values of the parameters.

    timm's LeViT and its relatives keep their attention biases in eval mode.
    """
    for module in model.modules():
        cache = vars(module).get("attention_bias_cache")
        if isinstance(cache, dict):
            cache.clear()


def require_finite(sums: Mapping[str, Tensor]) -> None:
    """No sum of squares may be NaN or infinite.

    Raises:
        NumericalError: names the first such parameter and how many of its entries are affected.
    """
    for name, total in sums.items():
        bad = total.numel() - int(torch.isfinite(total).sum())
        if bad:
            raise NumericalError(
                f"the Fisher of {name} has {bad} of {total.numel()} entries that are NaN or infinite, though every loss is finite.",
                "look for a division or square root at zero in the loss, or accumulate with dtype=torch.float64.",
            )


def _uses_batch_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def _draws(module: nn.Module) -> bool:
    if not module.training:
        return False
    if isinstance(module, _DropoutNd):
        return module.p > 0
    # timm: DropPath and DropBlock have drop_prob, PatchDropout has prob; torch's attention and RNNs have dropout.
    rates = (getattr(module, name, 0.0) for name in ("drop_prob", "prob", "dropout"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)
