"""What a function does with a tensor that was computed from parameters alone: how its gradient divides into images.

    out = function(x, q),   x has one block of rows per image, q belongs to all       wanted: d loss_n / d q for each n

The rules of this file know functions, not layers, and are found by the exact function. They serve every parameter that a module
uses by itself: tokens, position embeddings, scales, bias tables, fused and standardised weights. Three ways, cheapest first:

    copies     where q is broadcast over the rows, one copy of q a row enters instead: the gradient of row r is that of copy r
    products   linear layers, matrix products, convolutions and norms have the formulas of their layers
    repeated   anything else is called again for one image at a time, which is checked against the call for the whole batch

Per-sample gradients by one copy a sample are Goodfellow's and Opacus' idea; here they are used where broadcasting proves them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anchored.fisher.errors import UncoveredParameters
from anchored.fisher.rules.conv import conv2d
from anchored.fisher.rules.products import add_outer_squares, reached_tokens
from anchored.fisher.rules.registry import Call
from anchored.fisher.rules.rows import channels_last, joined

IsRoot = Callable[[Tensor], bool]


class Use(ABC):
    """One call of a function that mixes rows of images with roots.

    Args:
        roots: tensors computed from parameters alone.
        inputs: what `per_image` reads of the call; the caller checks that nobody changes it in place.
    """

    def __init__(self, roots: Sequence[Tensor], inputs: Sequence[Tensor] = ()) -> None:
        self.roots = list(roots)
        self.inputs = list(inputs)

    @abstractmethod
    def per_image(self, index: int, g: Tensor, images: int, part: slice) -> Tensor:
        """(b, *shape of root `index`): its gradient for each of the b images in `part`. g: the gradient that was recorded."""


class Product(Use):
    """A use whose per-image gradients need not be held: they are products, which have a rule of their own."""

    @abstractmethod
    def product(self, index: int) -> Hashable | None:
        """Uses of one root with the same key have a joint closed form, `add_products`; None where there is none."""

    @abstractmethod
    def add_products(self, index: int, uses: "Sequence[tuple[Use, Tensor]]", images: int, acc: Tensor) -> None:
        """Acc += sum_n (d loss_n / d root)^2 over all `uses` of one key, each with its g."""


class Copies(Use):
    """Rows of q, or one copy of q a row: g is the gradient of the copies, (R, ...)."""

    def __init__(self, root: Tensor, aligned: bool) -> None:
        super().__init__([root])
        self._aligned = aligned

    def per_image(self, index: int, g: Tensor, images: int, part: slice) -> Tensor:
        """See `Use`."""
        root = self.roots[0]
        rows = g.unflatten(0, (images, -1))[part]
        if not self._aligned:
            return rows.sum(1).reshape(-1, *root.shape)
        # Rows of q belong to images one by one: the gradient of an image is zero elsewhere.
        out = g.new_zeros(len(rows), images, *rows.shape[1:])
        for offset, image in enumerate(range(*part.indices(images))):
            out[offset, image] = rows[offset]
        return out.flatten(1, 2)


class Linear(Product):
    """x W^T + b, or x W for a matrix product."""

    def __init__(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, transposed: bool = False) -> None:
        super().__init__([root for root in (weight, bias) if root is not None], [x])
        self._has_weight = weight is not None
        self._transposed = transposed

    def per_image(self, index: int, g: Tensor, images: int, part: slice) -> Tensor:
        """See `Use`."""
        dtype = self.roots[index].dtype
        g = joined([g], images)[part]
        if not self._weight(index):
            return g.sum(1, dtype=dtype)
        g, a = g.to(dtype), joined([self.inputs[0]], images)[part].to(dtype)
        return torch.bmm(a.transpose(1, 2), g) if self._transposed else torch.bmm(g.transpose(1, 2), a)

    def product(self, index: int) -> Hashable | None:
        """See `Use`."""
        return ("linear", self._transposed) if self._weight(index) else None

    def add_products(self, index: int, uses: Sequence[tuple[Use, Tensor]], images: int, acc: Tensor) -> None:
        """See `Use`."""
        a = joined([use.inputs[0] for use, _ in uses], images)
        a, g = reached_tokens(a, joined([g for _, g in uses], images))
        add_outer_squares(acc, *((g, a) if self._transposed else (a, g)))

    def _weight(self, index: int) -> bool:
        return index == 0 and self._has_weight


class Convolution(Product):
    """One, two or three dimensions; a weight that is a parameter itself has the rule of `nn.Conv2d`."""

    def __init__(self, x: Tensor, shape: torch.Size, settings: Mapping[str, Any], roots: Mapping[str, Tensor]) -> None:
        super().__init__(list(roots.values()), [x])
        self._kind = list(roots)
        self._shape = shape
        self._settings = settings

    def per_image(self, index: int, g: Tensor, images: int, part: slice) -> Tensor:
        """See `Use`."""
        if self._kind[index] == "bias":
            return joined([channels_last(g)], images)[part].sum(1)
        dims = len(self._shape) - 2
        several = {name: _several(self._settings[name], dims) for name in ("stride", "padding", "dilation")}
        g = g.to(self.roots[index].dtype)
        rows = [tensor.unflatten(0, (images, -1))[part] for tensor in (self.inputs[0].to(g.dtype), g)]
        shape = g.new_empty(()).expand(self._shape)
        per_image = [
            torch.ops.aten.convolution_backward(
                g_n, a_n, shape, None, *several.values(), False, [0] * dims, self._settings["groups"], [False, True, False]
            )[1]
            for a_n, g_n in zip(*rows, strict=True)
        ]
        return torch.stack(per_image)

    def product(self, index: int) -> Hashable | None:
        """See `Use`."""
        if self._kind[index] == "bias" or len(self._shape) != 4:
            return None
        return ("convolution", *(_several(value, 2) for value in self._settings.values()))

    def add_products(self, index: int, uses: Sequence[tuple[Use, Tensor]], images: int, acc: Tensor) -> None:
        """See `Use`."""
        settings, groups = self._settings, self._settings["groups"]
        out, into, *kernel = self._shape
        size = (kernel[0], kernel[1])
        layer = nn.Conv2d(into * groups, out, size, bias=False, device="meta", **settings)
        conv2d(layer, [Call(use.inputs[0], g) for use, g in uses], images, {"weight": acc})


class Normalisation(Use):
    """W * xhat + b, where `xhat` is the same function without w and b."""

    def __init__(self, x: Tensor, xhat: Callable[[Tensor], Tensor], channels: int | None, roots: Mapping[str, Tensor]) -> None:
        super().__init__(list(roots.values()), [x])
        self._xhat, self._channels, self._kind = xhat, channels, list(roots)

    def per_image(self, index: int, g: Tensor, images: int, part: slice) -> Tensor:
        """See `Use`."""
        each = len(g) // images
        rows = slice(part.start * each, part.stop * each)
        g = g[rows].to(self.roots[index].dtype)
        if self._kind[index] == "weight":
            g = g * self._xhat(self.inputs[0][rows].to(g.dtype))
        shape = self.roots[index].shape
        g = g.flatten(g.ndim - len(shape)) if self._channels is None else g.movedim(self._channels, -1)
        return g.reshape(len(range(*part.indices(images))), -1, shape.numel()).sum(1).reshape(-1, *shape)


class Repeated(Use):
    """Any function that treats the rows of images one by one: it is called again for the rows of one image."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any, is_root: IsRoot, out: Tensor) -> None:
        tensors = list(tensors_in((args, kwargs)))
        roots = list({id(tensor): tensor for tensor in tensors if is_root(tensor)}.values())
        rows = list({id(tensor): tensor.detach() for tensor in tensors if not is_root(tensor)}.values())
        super().__init__(roots, [*rows, out.detach()])
        order = {id(tensor): -1 - index for index, tensor in enumerate(roots)}
        order |= {key: index for index, key in enumerate({id(tensor): None for tensor in tensors if not is_root(tensor)})}
        self.name = getattr(function, "__name__", str(function))
        self._function = function
        self._template = mapped((args, kwargs), lambda tensor: _Slot(order[id(tensor)]))
        device = out.device.type
        self._precision = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        self._images = 0
        self._sliced: tuple[bool, ...] = ()

    def per_image(self, index: int, g: Tensor, images: int, part: slice) -> Tensor:
        """See `Use`."""
        if self._images != images and not self._divide(images):
            raise UncoveredParameters(f"the rows of {self.name} are not those of images.", 'backend="loop" is exact for any model.')
        out = []
        for image in range(*part.indices(images)):
            with torch.enable_grad():
                value, leaves = self._call(image, images, self._sliced)
                (gradient,) = torch.autograd.grad(value, [leaves[index]], _block(g, image, images), allow_unused=True)
            root = self.roots[index]
            if gradient is None:
                out.append(torch.zeros_like(root))
            elif leaves[index].shape == root.shape:
                out.append(gradient)
            else:
                whole = torch.zeros_like(root)
                _block(whole, image, images).copy_(gradient)
                out.append(whole)
        return torch.stack(out)

    def fits(self, images: int) -> bool:
        """Whether there is a way to cut the arguments into images that gives the rows of the first image."""
        return self._divide(images)

    def _divide(self, images: int) -> bool:
        """Finds which arguments have rows of images: the first choice that reproduces the first image's rows."""
        self._images = images
        self._sliced = (False,) * (len(self.roots) + len(self.inputs) - 1)
        if images == 1:
            return True
        arguments = [*self.roots, *self.inputs[:-1]]
        wanted = _block(self.inputs[-1], 0, images)
        can = [t.ndim > 0 and t.shape[0] % images == 0 and t.shape[0] > 0 for t in arguments]
        firsts = [(False, True) if c else (False,) for c in can[: len(self.roots)]]
        rest = can[len(self.roots) :]
        for choice in _choices(firsts):
            for others in (rest, *(_choices([(True, False) if c else (False,) for c in rest]) if len(rest) < 5 else ())):
                sliced = (*choice, *others)
                try:
                    value, _ = self._call(0, images, sliced)
                except (RuntimeError, IndexError, ValueError):
                    continue
                same = isinstance(value, Tensor) and value.shape == wanted.shape
                if same and torch.allclose(value, wanted, rtol=max(1e-3, 4 * _rounding(wanted)), atol=1e-5):
                    self._sliced = sliced
                    return True
        return False

    def _call(self, image: int, images: int, sliced: Sequence[bool]) -> tuple[Any, list[Tensor]]:
        arguments = [
            _block(tensor.detach(), image, images) if cut else tensor.detach()
            for tensor, cut in zip([*self.roots, *self.inputs[:-1]], sliced, strict=True)
        ]
        leaves = [tensor.requires_grad_() for tensor in arguments[: len(self.roots)]]
        rest = arguments[len(self.roots) :]
        args, kwargs = mapped(self._template, lambda slot: leaves[-1 - slot.index] if slot.index < 0 else rest[slot.index])
        with torch.autocast(*self._precision):  # as in the call that is repeated
            return self._function(*args, **kwargs), leaves


class _Slot:
    def __init__(self, index: int) -> None:
        self.index = index


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    found: list[Tensor] = []
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, tuple | list):
            stack.extend(reversed(part))
        elif isinstance(part, dict):
            stack.extend(reversed(list(part.values())))
    return found


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with every tensor (or slot) changed."""
    if isinstance(value, Tensor | _Slot):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(part, change) for part in value))
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return type(value)(mapped(part, change) for part in value)
    if isinstance(value, dict):
        return {key: mapped(part, change) for key, part in value.items()}
    return value


def use_of(function: Any, args: Any, kwargs: Any, is_root: IsRoot) -> Use | None:
    """The closed form of this call, if `function` has one and its roots stand where that form expects them."""
    build = _CLOSED.get(function)
    return build(args, kwargs, is_root) if build is not None else None


def _linear(args: Any, kwargs: Any, is_root: IsRoot) -> Use | None:
    bound = _bound(("input", "weight", "bias"), args, kwargs)
    x, weight, bias = bound["input"], bound["weight"], bound.get("bias")
    if is_root(x) or x.ndim < 2:
        return None
    return Linear(x.detach(), weight if is_root(weight) else None, bias if bias is not None and is_root(bias) else None)


def _matmul(args: Any, kwargs: Any, is_root: IsRoot) -> Use | None:
    if len(args) != 2 or is_root(args[0]) or args[0].ndim < 2 or args[1].ndim != 2:
        return None
    return Linear(args[0].detach(), args[1], None, transposed=True)


def _convolution(args: Any, kwargs: Any, is_root: IsRoot) -> Use | None:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    bound = dict(stride=1, padding=0, dilation=1, groups=1) | _bound(names, args, kwargs)
    x, weight = bound["input"], bound["weight"]
    if is_root(x) or isinstance(bound["padding"], str) or x.ndim != weight.ndim:
        return None
    return Convolution(x.detach(), weight.shape, {name: bound[name] for name in names[3:]}, _affine(bound, is_root))


def _norm(function: Callable[..., Tensor], names: Sequence[str], channels: int | None) -> Callable[..., Use | None]:
    def build(args: Any, kwargs: Any, is_root: IsRoot) -> Use | None:
        bound = _bound(names, args, kwargs)
        x = bound.pop("input")
        roots = _affine(bound, is_root)
        rest = {name: value for name, value in bound.items() if name not in ("weight", "bias")}
        if any(is_root(tensor) for tensor in (x, *tensors_in(rest))) or bound.get("training"):
            return None
        return Normalisation(x.detach(), lambda rows: function(rows, **rest), channels, roots)

    return build


_CLOSED: dict[Any, Callable[[Any, Any, IsRoot], Use | None]] = {
    F.linear: _linear,
    torch.matmul: _matmul,
    torch.mm: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    torch.Tensor.mm: _matmul,
    F.conv1d: _convolution,
    F.conv2d: _convolution,
    F.conv3d: _convolution,
    F.layer_norm: _norm(F.layer_norm, ("input", "normalized_shape", "weight", "bias", "eps"), None),
    F.rms_norm: _norm(F.rms_norm, ("input", "normalized_shape", "weight", "eps"), None),
    F.group_norm: _norm(F.group_norm, ("input", "num_groups", "weight", "bias", "eps"), 1),
    F.batch_norm: _norm(
        F.batch_norm, ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"), 1
    ),
}


def _bound(names: Sequence[str], args: Any, kwargs: Any) -> dict[str, Any]:
    return dict(zip(names, args, strict=False)) | kwargs


def _affine(bound: Mapping[str, Any], is_root: IsRoot) -> dict[str, Tensor]:
    """The roots among weight and bias, which may be one and the same."""
    return {name: bound[name] for name in ("weight", "bias") if isinstance(bound.get(name), Tensor) and is_root(bound[name])}


def _rounding(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0


def _several(value: Any, dims: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def _block(tensor: Tensor, image: int, images: int) -> Tensor:
    each = len(tensor) // images
    return tensor[image * each : (image + 1) * each]


def _choices(options: Sequence[Sequence[bool]]) -> list[tuple[bool, ...]]:
    found: list[tuple[bool, ...]] = [()]
    for option in options:
        found = [(*start, end) for start in found for end in option]
    return found
