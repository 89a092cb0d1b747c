"""The `loop` backend: one image a backward pass.

    sums += (d loss_n / d theta)^2        for n = 0, 1, 2, ...

No code per layer type, hence exact for every model and the truth that the other backends are tested against.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anchored.fisher.batches import image_count, image_slice
from anchored.fisher.guards import forget_cached_parameters, require_dependence, require_loss_per_image


class Loop:
    """Adds squared gradients to `sums`, one image at a time.

    Args:
        model: in eval mode.
        names: the parameters to measure; they require gradients.
        dtype: of the squares and their sums.
    """

    name = "loop"

    def __init__(self, model: nn.Module, names: Sequence[str], dtype: torch.dtype) -> None:
        parameters = dict(model.named_parameters())
        self._model = model
        self._parameters = [parameters[name] for name in names]
        self.sums = {name: torch.zeros(parameters[name].shape, dtype=dtype, device=parameters[name].device) for name in names}

    def add(self, batch: Any, loss: Callable[[nn.Module, Any], Tensor], first_image: int) -> int:
        """Adds the images of `batch`; returns their number."""
        images = image_count(batch)
        for index in range(images):
            forget_cached_parameters(self._model)
            losses = loss(self._model, image_slice(batch, index, index + 1))
            value = require_loss_per_image(losses, first_image + index, images=1)
            require_dependence(value.requires_grad)
            gradients = torch.autograd.grad(value.sum(), self._parameters, allow_unused=True)
            require_dependence(any(gradient is not None for gradient in gradients))
            for total, gradient in zip(self.sums.values(), gradients, strict=True):
                if gradient is not None:
                    gradient = gradient.to(total.dtype)
                    total.addcmul_(gradient, gradient)
        return images

    def close(self) -> None:
        """The loop attaches nothing to the model."""
        forget_cached_parameters(self._model)
