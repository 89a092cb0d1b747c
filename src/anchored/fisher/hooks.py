"""The `hooks` backend: the loop's result from ordinary batched passes.

    a forward hook keeps each layer's input a, a tensor hook on its output receives g, a rule turns both into
    sum_n (d loss_n / d theta)^2

Parameters of layers with a rule take this way; all others are followed to the functions that use them (`trace.py`). The parameters
are frozen, so autograd neither computes nor keeps anything for the ordinary weight gradients, which would cost another 20-30 %; the
first outputs are made to require gradients instead. Tensor hooks and not module backward hooks, because these fail on layers that
are followed by an in-place activation.

Before the first batch two of its images are measured: for the first of them autograd gives the truth, and the rules have to agree.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils.hooks import RemovableHandle

from anchored.fisher.batches import image_count, image_slice
from anchored.fisher.coverage import Layer, layers
from anchored.fisher.errors import BadLoss, ChangedInPlace, CoupledImages, UncoveredParameters, listed
from anchored.fisher.followed import Group, Site, groups, version
from anchored.fisher.guards import (
    forget_cached_parameters,
    frozen,
    require_agreement,
    require_dependence,
    require_loss_per_image,
)
from anchored.fisher.rules import Call
from anchored.fisher.rules.functions import Copies, Repeated, Use
from anchored.fisher.trace import Trace

Loss = Callable[[nn.Module, Any], Tensor]


class Hooks:
    """Adds the squared per-image gradients of whole batches to `sums`.

    Args:
        model: in eval mode. Hooks stay on it until `close`.
        names: the parameters to measure; they require gradients.
        dtype: of the squares and their sums.
    """

    name = "hooks"

    def __init__(self, model: nn.Module, names: Sequence[str], dtype: torch.dtype) -> None:
        self._model = model
        parameters = dict(model.named_parameters())
        self._parameters = {name: parameters[name] for name in names}
        self.sums = {name: _zeros(parameter, dtype) for name, parameter in self._parameters.items()}
        self._target = self.sums
        self._start = torch.zeros((), device=self._parameters[names[0]].device, requires_grad=True)
        self._started = self._measuring = self._probing = self._checked = self._reported = False
        self._coarsest = 0.0
        self._images = 0
        self._handles: list[RemovableHandle] = []
        self._taps: list[_Tap] = []
        self._followed: dict[str, nn.Parameter] = {}
        self._sites: list[Site] = []
        self._groups: list[Group] = []
        self._leaves: Mapping[str, Tensor] = {}
        try:
            self._attach(layers(model, names))
        except BaseException:
            self.close()
            raise

    def add(self, batch: Any, loss: Loss, first_image: int) -> int:
        """Adds the images of `batch`; returns their number. Images of the first batch also check what the rules rely on.

        Raises:
            UncoveredParameters: lists every parameter that the rules cannot vouch for.
        """
        if not self._checked:
            self._check(batch, loss, first_image)
        with self._losses(batch, loss, first_image) as losses:
            self._backward(losses.sum())
            self._finish()
            return self._images

    @contextmanager
    def _losses(self, batch: Any, loss: Loss, first_image: int) -> Iterator[Tensor]:
        """The losses of a batch, ready for a backward pass that the rules hear."""
        try:
            with frozen(self._model):
                self._measuring = True
                losses = require_loss_per_image(self._forward(batch, loss), first_image)
                self._images = len(losses)
                self._groups = groups(self._sites)
                yield losses
        finally:
            self._measuring = False
            self._clear()

    def close(self) -> None:
        """Removes every hook from the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        forget_cached_parameters(self._model)
        self.sums = {name: total.contiguous() for name, total in self.sums.items()}

    def _attach(self, covering: Sequence[Layer]) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._taps = [_Tap(layer) for layer in covering]
        covered = {name for layer in covering for name in layer.parameters.values()}
        self._followed = {name: parameter for name, parameter in self._parameters.items() if name not in covered}
        for tap in self._taps:
            self._handles += tap.layer.rule.attach(tap.layer.module, self._recorder(tap))

    def _forward(self, batch: Any, loss: Loss) -> Tensor:
        """The losses of the batch, with every use of a parameter recorded."""
        state = torch.get_rng_state()
        while True:
            self._clear()
            self._started = False
            forget_cached_parameters(self._model)
            if self._checked and not self._followed:
                return loss(self._model, batch)
            trace = Trace(self._model, self._followed, [tap.layer for tap in self._taps], self._meet)
            with trace:
                losses = loss(self._model, batch)
                if isinstance(losses, Tensor) and trace.is_root(losses):
                    raise BadLoss("the loss does not depend on the images.", "check what the model is given.")
            self._leaves = trace.leaves
            if self._checked or not trace.outside:
                break
            # Layers whose parameters are also used elsewhere, or that read no image, are followed instead.
            self._attach([tap.layer for tap in self._taps if not trace.outside.keys() & set(tap.layer.parameters.values())])
            torch.set_rng_state(state)
        if not self._checked:
            self._require_use(trace.problems)
        return losses

    def _recorder(self, tap: "_Tap") -> Callable[[Tensor, Tensor, Any], None]:
        def record(a: Tensor, out: Tensor, note: Any) -> None:
            # Not a teacher's pass through the same model, nor one between two batches.
            if not self._measuring or not torch.is_grad_enabled():
                return
            place = self._place(out)  # counts as a change of `out`, which a rule may read: hence before the record
            index = tap.record(a, note)
            shape = _other_shape(out, place)
            place.register_hook(lambda g: self._receive(tap, index, g if shape is None else g.reshape(shape)))

        return record

    def _meet(self, use: Use, names: list[frozenset[str]], tensor: Tensor) -> Tensor:
        if isinstance(use, Copies):
            tensor = place = _NewBranch.apply(tensor, self._start)
            self._started = True
        else:
            place = self._place(tensor)
        site = Site(use, names)
        self._sites.append(site)
        shape = _other_shape(tensor, place)
        place.register_hook(lambda g: self._arrive(site, g if shape is None else g.reshape(shape)))
        return tensor

    def _place(self, out: Tensor) -> Tensor:
        """Where the gradient of `out` can be heard, made part of the graph: `out`, or what it is another shape of.

        `F.linear` of three dimensions returns a view of its product. A view that is changed in place afterwards gets another
        gradient function, and a hook on it falls silent; the product itself does not.
        """
        base = out._base
        whole = base is not None and base.numel() == out.numel() and base.is_contiguous() and out.is_contiguous()
        place = base if whole and base is not None and not (base.is_leaf and base.requires_grad) else out
        if not place.requires_grad:
            _StartGraph.apply(place, self._start)
            self._started = True
            _ = out.grad_fn  # reading it tells a view that its base has a gradient function
        return place

    def _receive(self, tap: "_Tap", index: int, g: Tensor) -> None:
        self._require_separate_images(tap.layer.name, g)
        tap.gradients[index] = g.detach()
        self._note(g)
        if len(tap.gradients) == len(tap.calls):
            self._finish_tap(tap)

    def _arrive(self, site: Site, g: Tensor) -> None:
        self._require_separate_images(listed(sorted(frozenset().union(*site.names))), g)
        site.g = g.detach()
        self._note(g)
        for group in site.groups:
            if group.complete:
                self._finish_group(group)

    def _note(self, g: Tensor) -> None:
        self._reported = True
        self._coarsest = max(self._coarsest, torch.finfo(g.dtype).eps)

    def _finish(self) -> None:
        """Applies the rules to what the loss reaches only in part."""
        for tap in self._taps:
            self._finish_tap(tap)
        for group in self._groups:
            if not group.finished:
                self._finish_group(group)

    def _finish_tap(self, tap: "_Tap") -> None:
        """Applies the rule as soon as all calls have reported: only one layer's gradients are held at a time."""
        calls = tap.reported_calls()
        tap.clear()  # the next layer's gradients find room where this one's were
        if calls:
            sums = {local: self._target[name] for local, name in tap.layer.parameters.items()}
            tap.layer.rule.accumulate(tap.layer.module, calls, self._images, sums)

    def _finish_group(self, group: Group) -> None:
        if any(site.g is not None and site.changed for site, _ in group.uses):
            raise ChangedInPlace(
                f"what {listed(group.names)} acts on was changed in place afterwards.",
                'make that operation out of place, or take backend="loop".',
            )
        group.add(self._leaves, self._images, self._target)
        group.finished = True
        group.release()

    def _check(self, batch: Any, loss: Loss, first_image: int) -> None:
        """The first image alone: its gradient may reach no other rows, and the rules must give what autograd gives.

        On two images where the batch and the loss allow it, since two tell as much as all, in less memory.
        """
        state = torch.get_rng_state()
        try:
            count = min(2, image_count(batch))
            sample = image_slice(batch, 0, count)
            truth, values = self._first_image_by_autograd(sample, loss, first_image, count)
        except Exception:  # parts of the batch mean nothing, or the loss knows its size: if it is the loss, it fails again
            torch.set_rng_state(state)
            sample = batch
            truth, values = self._first_image_by_autograd(sample, loss, first_image)
        torch.set_rng_state(state)
        self._target = {name: torch.zeros_like(total) for name, total in self.sums.items()}
        self._probing = True
        try:
            with self._losses(sample, loss, first_image) as losses:
                self._require_divisible()
                require_dependence(losses.requires_grad)
                self._backward(losses[0])
                require_dependence(self._reported)
                self._finish()
                coarsest = self._coarsest
        finally:
            self._probing, found, self._target = False, self._target, self.sums
        torch.set_rng_state(state)
        # A loss that draws other numbers in each call has no truth to compare with.
        if torch.equal(values[:1], losses[:1].detach()):
            require_agreement(found, truth, max(coarsest, torch.finfo(next(iter(found.values())).dtype).eps))
        # One image proves nothing about the order of rows.
        self._checked = len(losses) > 1

    def _first_image_by_autograd(
        self, batch: Any, loss: Loss, first_image: int, images: int | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Squared gradients of the first image from an ordinary backward pass, and the losses."""
        forget_cached_parameters(self._model)
        losses = require_loss_per_image(loss(self._model, batch), first_image, images)
        require_dependence(losses.requires_grad)
        try:
            gradients = torch.autograd.grad(losses[0], list(self._parameters.values()), allow_unused=True)
        except RuntimeError as error:
            if "inplace operation" not in str(error):
                raise
            return {}, torch.full_like(losses, torch.nan)  # the measurement finds it as well, and names the layer
        found = {name: gradient for name, gradient in zip(self.sums, gradients, strict=True) if gradient is not None}
        return {name: gradient.to(self.sums[name].dtype).square_() for name, gradient in found.items()}, losses.detach()

    def _require_use(self, problems: Mapping[str, str]) -> None:
        if problems:
            raise UncoveredParameters(
                f"no exact batched rule for {len(problems)} of {len(self.sums)} parameters: "
                f"{'; '.join(f'{name} ({why})' for name, why in problems.items())}.",
                'backend="loop" is exact for any model.',
                names=problems,
            )
        used = frozenset().union(*(names for site in self._sites for names in site.names))
        used |= {name for tap in self._taps if tap.calls for name in tap.layer.parameters.values()}
        unused = [name for name in self.sums if name not in used]
        if unused:
            raise UncoveredParameters(
                f"never used by the loss: {listed(unused)}.",
                'freeze these with requires_grad_(False), or take backend="loop", which gives them a Fisher of zero.',
                names=unused,
            )
        if not self._started:
            raise BadLoss("the images of the batch require gradients.", "detach them.")

    def _require_divisible(self) -> None:
        problems = {
            name: f"the rows of {site.use.name} are not those of images"
            for site in self._sites
            if isinstance(site.use, Repeated) and not site.use.fits(self._images)
            for names in site.names
            for name in sorted(names)
        }
        if problems:
            self._require_use(problems)

    def _require_separate_images(self, where: str, g: Tensor) -> None:
        """While the first image is probed, catches view-major rows, heads with batch statistics, and losses that compare images."""
        if g.ndim == 0 or len(g) % self._images:
            raise CoupledImages(
                f"{where or 'the model'} saw {len(g) if g.ndim else 'no'} rows, which {self._images} images do not divide.",
                "every image needs the same number of views in each call of the model.",
            )
        # NaN is no trace of another image: zero times an infinite derivative is NaN as well.
        if self._probing and bool(g[len(g) // self._images :].nan_to_num(nan=0.0).any()):
            raise CoupledImages(
                f"the loss of image 0 reaches rows of other images in {where or 'the model'}.",
                "keep the rows of an image together, views.flatten(0, 1) of (B, V, ...); heads need eval mode; "
                "and losses that compare images, like InfoNCE, have no Fisher per image.",
            )

    def _clear(self) -> None:
        for tap in self._taps:
            tap.clear()
        self._sites, self._groups, self._leaves = [], [], {}
        self._reported, self._coarsest = False, 0.0

    def _backward(self, total: Tensor) -> None:
        # For `_start` only: parameters of a head that is not frozen neither cost anything nor get a `.grad`.
        torch.autograd.grad(total, self._start, allow_unused=True)


def _other_shape(out: Tensor, place: Tensor) -> torch.Size | None:
    """The shape of `out` where `place` has another. Hooks must hold no tensor: one that holds its own keeps it alive."""
    return None if place is out else out.shape


class _Tap:
    """The calls of one layer in the batch at hand."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.calls: list[tuple[Tensor, int, Any]] = []
        self.gradients: dict[int, Tensor] = {}

    def record(self, a: Tensor, note: Any) -> int:
        self.calls.append((a.detach(), version(a), note))
        return len(self.calls) - 1

    def reported_calls(self) -> list[Call]:
        """The calls that the loss depends on."""
        calls = []
        for index, g in sorted(self.gradients.items()):
            a, before, note = self.calls[index]
            # With frozen weights autograd neither keeps nor checks the input of a layer; it would be wrong in silence.
            if version(a) != before:
                raise ChangedInPlace(
                    f"the input of {self.layer.name or 'the model'} was changed in place after the layer had read it.",
                    'make that operation out of place, or take backend="loop".',
                )
            calls.append(Call(a, g, note))
        return calls

    def clear(self) -> None:
        """Forgets the batch."""
        self.gradients.clear()
        self.calls.clear()


class _NewBranch(torch.autograd.Function):
    """A copy of a parameter, one a row, as a place where a gradient arrives; it goes no further."""

    @staticmethod
    def forward(ctx: FunctionCtx, copies: Tensor, start: Tensor) -> Tensor:
        return copies.view_as(copies)

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[None, None]:
        return None, None


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
