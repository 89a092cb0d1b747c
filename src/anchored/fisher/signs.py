"""The `signs` backend: an unbiased estimate from one plain backward pass a batch, for any model.

    sums += (sum_n s_n d loss_n / d theta)^2        s_n = +1 or -1, independent, one an image

E[s_n s_m] = 0 for n != m, so the expectation of the square is the sum of the squares. The variance of a batch,
2 ((sum_n g_n^2)^2 - sum_n g_n^4), is estimated without bias from a second draw m' beside the first, m:

    Var m^2 = E (m^2 - m'^2)^2 / 2

One batch in eight, chosen by the seed, has this second draw: a backward pass more. Variances of batches add.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anchored.fisher.guards import require_dependence, require_loss_per_image

_ONE_IN = 8


class Signs:
    """Adds squared signed gradients of whole batches to `sums`.

    Args:
        model: in eval mode.
        names: the parameters to measure; they require gradients.
        dtype: of the squares and their sums.
        seed: of the signs. The sign of an image depends on the seed and its index alone.

    Attributes:
        sums: by parameter name.
        variances: (tensors,) sum over the entries of a tensor of the variance of its sums, for the images checked.
        checked: number of images of the batches with a second draw.
    """

    name = "signs"

    def __init__(self, model: nn.Module, names: Sequence[str], dtype: torch.dtype, seed: int) -> None:
        parameters = dict(model.named_parameters())
        self._model = model
        self._parameters = [parameters[name] for name in names]
        self._seed = seed
        device = self._parameters[0].device
        self.sums = {name: torch.zeros(parameters[name].shape, dtype=dtype, device=parameters[name].device) for name in names}
        self.variances = torch.zeros(len(names), dtype=torch.float64, device=device)
        self.checked = 0

    def add(self, batch: Any, loss: Callable[[nn.Module, Any], Tensor], first_image: int) -> int:
        """Adds the images of `batch`; returns their number."""
        losses = require_loss_per_image(loss(self._model, batch), first_image)
        require_dependence(losses.requires_grad)
        twice = _is_checked(self._seed, first_image)
        first = self._gradients(losses, first_image, draw=0, keep=twice)
        second = self._gradients(losses, first_image, draw=1, keep=False) if twice else [None] * len(first)
        for index, (total, gradient, other) in enumerate(zip(self.sums.values(), first, second, strict=True)):
            if gradient is not None:
                squares = gradient.to(total.dtype).square_()
                total += squares
                if other is not None:
                    self.variances[index] += (squares - other.to(total.dtype).square_()).double().square_().sum() / 2
        self.checked += len(losses) if twice else 0
        return len(losses)

    def _gradients(self, losses: Tensor, first_image: int, *, draw: int, keep: bool) -> tuple[Tensor | None, ...]:
        signed = losses * random_signs(self._seed, first_image, len(losses), draw).to(losses)
        gradients = torch.autograd.grad(signed.sum(), self._parameters, allow_unused=True, retain_graph=keep)
        require_dependence(any(gradient is not None for gradient in gradients))
        return gradients

    def close(self) -> None:
        """Nothing to undo."""


def random_signs(seed: int, first: int, count: int, draw: int = 0) -> Tensor:
    """(count,) of +1 and -1: the signs of the images `first`, `first` + 1, ..., whatever batch they come in."""
    bits = [np.random.default_rng([seed, image, draw]).integers(2) for image in range(first, first + count)]
    return torch.from_numpy(np.asarray(bits, dtype=np.float32) * 2 - 1)


def _is_checked(seed: int, first_image: int) -> bool:
    """By the batch's place in the whole measurement: a shard or a restart must not change which batches are checked."""
    return first_image == 0 or int(np.random.default_rng([seed, first_image, 2]).integers(_ONE_IN)) == 0
