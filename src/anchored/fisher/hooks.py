"""The `hooks` backend: the loop's result from ordinary batched passes.

    a forward hook keeps each layer's input a, a tensor hook on its output receives g, a rule turns both into
    sum_n (d loss_n / d theta)^2

The parameters are frozen, so autograd neither computes nor keeps anything for the ordinary weight gradients, which would
cost another 20-30 %; the first outputs are made to require gradients instead. Tensor hooks and not module backward hooks,
because these fail on layers that are followed by an in-place activation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils.hooks import RemovableHandle

from anchored.fisher.coverage import DirectUse, Layer, layers
from anchored.fisher.errors import BadLoss, ChangedInPlace, CoupledImages, UncoveredParameters, listed
from anchored.fisher.guards import frozen, require_dependence, require_loss_per_image
from anchored.fisher.rules import Call


class Hooks:
    """Adds the squared per-image gradients of whole batches to `sums`.

    Args:
        model: in eval mode. Hooks stay on it until `close`.
        names: the parameters to measure; they require gradients.
        dtype: of the squares and their sums.

    Raises:
        UncoveredParameters: lists every parameter without a rule.
    """

    name = "hooks"

    def __init__(self, model: nn.Module, names: Sequence[str], dtype: torch.dtype) -> None:
        parameters = dict(model.named_parameters())
        covering = layers(model, names)
        self._model = model
        self.sums = {name: _zeros(parameters[name], dtype) for name in names}
        self._start = torch.zeros((), device=parameters[names[0]].device, requires_grad=True)
        self._started = False
        self._measuring = False
        self._probing = False
        self._images = 0
        self._taps = [_Tap(layer, {local: self.sums[name] for local, name in layer.parameters.items()}) for layer in covering]
        self._handles: list[RemovableHandle] = []
        self._checked = False
        try:
            for tap in self._taps:
                self._handles += tap.layer.rule.attach(tap.layer.module, self._recorder(tap))
        except BaseException:
            self.close()
            raise

    def add(self, batch: Any, loss: Callable[[nn.Module, Any], Tensor], first_image: int) -> int:
        """Adds the images of `batch`; returns their number. The first batch is also used to check what the rules rely on."""
        first = not self._checked
        try:
            with frozen(self._model):
                self._started, self._measuring = False, True
                losses = self._first_losses(batch, loss) if first else require_loss_per_image(loss(self._model, batch), first_image)
                self._images = len(losses)
                if first:
                    self._require_separate_images(losses)
                self._backward(losses.sum())
                require_dependence(not first or any(tap.reported for tap in self._taps))
                for tap in self._taps:
                    tap.finish(self._images)
            self._checked = True
            return self._images
        finally:
            self._measuring = False
            for tap in self._taps:
                tap.clear()

    def close(self) -> None:
        """Removes every hook from the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.sums = {name: total.contiguous() for name, total in self.sums.items()}

    def _recorder(self, tap: "_Tap") -> Callable[[Tensor, Tensor, Any], None]:
        def record(a: Tensor, out: Tensor, note: Any) -> None:
            # Not a teacher's pass through the same model, nor one between two batches.
            if not self._measuring or not torch.is_grad_enabled():
                return
            if not out.requires_grad:
                _StartGraph.apply(out, self._start)
                self._started = True
            index = tap.record(a, note)
            out.register_hook(lambda g: self._receive(tap, index, g))

        return record

    def _receive(self, tap: "_Tap", index: int, g: Tensor) -> None:
        if self._probing:
            self._require_first_image_only(tap, g)
        else:
            tap.receive(index, g.detach(), self._images)

    def _backward(self, total: Tensor, keep: bool = False) -> None:
        # For `_start` only: parameters of a head that is not frozen neither cost anything nor get a `.grad`.
        torch.autograd.grad(total, self._start, retain_graph=keep, allow_unused=True)

    def _first_losses(self, batch: Any, loss: Callable[[nn.Module, Any], Tensor]) -> Tensor:
        with DirectUse([tap.layer for tap in self._taps]) as direct:
            value = loss(self._model, batch)
        losses = require_loss_per_image(value, 0)
        self._require_use(direct.names)
        require_dependence(losses.requires_grad)
        return losses

    def _require_use(self, direct: Sequence[str]) -> None:
        if direct:
            raise UncoveredParameters(
                f"used outside its layer: {listed(direct)}; a rule sees only what a layer does when it is called.",
                'backend="loop" is exact for any model.',
            )
        unused = [name for tap in self._taps if not tap.calls for name in tap.layer.parameters.values()]
        if unused:
            raise UncoveredParameters(
                f"never used by the loss: {listed(unused)}.",
                'freeze these with requires_grad_(False), or take backend="loop", which gives them a Fisher of zero.',
            )
        if not self._started:
            raise BadLoss("the images of the batch require gradients.", "detach them.")

    def _require_separate_images(self, losses: Tensor) -> None:
        """The gradient of the first loss must reach the rows of the first image only, in every layer.

        Catches view-major rows, heads with batch statistics, and losses that compare images; each would give a wrong
        Fisher without any other sign. Costs one backward pass in the whole measurement.
        """
        if self._images < 2:
            return
        self._probing = True
        try:
            self._backward(losses[0], keep=True)
        finally:
            self._probing = False

    def _require_first_image_only(self, tap: "_Tap", g: Tensor) -> None:
        if len(g) % self._images:
            raise CoupledImages(
                f"{tap.layer.name or 'the model'} saw {len(g)} rows, which {self._images} images do not divide.",
                "every image needs the same number of views in each call of the model.",
            )
        # NaN is no trace of another image: zero times an infinite derivative is NaN as well.
        if bool(g[len(g) // self._images :].nan_to_num(nan=0.0).any()):
            raise CoupledImages(
                f"the loss of image 0 reaches rows of other images in {tap.layer.name or 'the model'}.",
                "keep the rows of an image together, views.flatten(0, 1) of (B, V, ...); heads need eval mode; "
                "and losses that compare images, like InfoNCE, have no Fisher per image.",
            )


class _Tap:
    """The calls of one layer in the batch at hand."""

    def __init__(self, layer: Layer, sums: dict[str, Tensor]) -> None:
        self.layer = layer
        self.sums = sums
        self.calls: list[tuple[Tensor, int, Any]] = []
        self.gradients: dict[int, Tensor] = {}
        self.reported = False

    def record(self, a: Tensor, note: Any) -> int:
        self.calls.append((a.detach(), _version(a), note))
        return len(self.calls) - 1

    def receive(self, index: int, g: Tensor, images: int) -> None:
        """Applies the rule as soon as all calls have reported: only one layer's gradients are held at a time."""
        self.gradients[index] = g
        self.reported = True
        if len(self.gradients) == len(self.calls):
            self.finish(images)

    def finish(self, images: int) -> None:
        """Applies the rule to the calls that the loss depends on."""
        calls = []
        for index, g in sorted(self.gradients.items()):
            a, version, note = self.calls[index]
            # With frozen weights autograd neither keeps nor checks the input of a layer; it would be wrong in silence.
            if _version(a) != version:
                raise ChangedInPlace(
                    f"the input of {self.layer.name or 'the model'} was changed in place after the layer had read it.",
                    'make that operation out of place, or take backend="loop".',
                )
            calls.append(Call(a, g, note))
        self.clear()  # the next layer's gradients find room where this one's were
        if calls:
            self.layer.rule.accumulate(self.layer.module, calls, images, self.sums)

    def clear(self) -> None:
        """Forgets the calls of the batch."""
        self.calls.clear()
        self.gradients.clear()


class _StartGraph(torch.autograd.Function):
    """Makes a tensor require gradients without making it a leaf, which could not be changed in place afterwards."""

    @staticmethod
    def forward(ctx: FunctionCtx, out: Tensor, start: Tensor) -> Tensor:
        ctx.mark_dirty(out)
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[None, None]:
        return None, None


def _zeros(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """Filters with their channels last, the order in which the rule of convolutions finds their products."""
    order = torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
    return torch.empty(parameter.shape, dtype=dtype, device=parameter.device, memory_format=order).zero_()


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
