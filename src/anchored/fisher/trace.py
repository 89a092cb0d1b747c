"""Follows parameters that belong to no layer with a rule, from where they are used to where they meet the images.

    p -> q = f(p)                     computed from parameters alone: one small graph, no images in it
    out = function(x, q)              the first tensor with rows of images: a `Use`, whose gradient divides into images

Every torch function that Python calls passes here. A tensor is a constant (from buffers, frozen parameters and factories alone), a
root (from constants and followed parameters) or unknown. Unknown means images: what is not proved free of them counts as theirs.
What the mode cannot see (scripted code, custom autograd functions) is found by the comparison with autograd, see `hooks.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from anchored.fisher.coverage import Layer
from anchored.fisher.rules.functions import Copies, Repeated, Use, mapped, tensors_in, use_of
from anchored.fisher.rules.rewrites import REWRITES

NO_NAMES: frozenset[str] = frozenset()


class Known(NamedTuple):
    """A tensor without images.

    names: the followed parameters it depends on; none for a constant.
    copied: the tensor of which each row is a copy, if so.
    """

    tensor: Tensor
    names: frozenset[str]
    copied: "Known | None" = None


class Trace(TorchFunctionMode):
    """Active while the loss of one batch is computed.

    Args:
        model: its buffers and other parameters are constants.
        followed: the parameters to follow, by name. In the computation a leaf alias of each takes its place.
        layers: those with rules of their own.
        meet: meet(use, names of each root, tensor): called for each use; `tensor` is where its gradient will arrive.
    """

    def __init__(
        self,
        model: nn.Module,
        followed: Mapping[str, Tensor],
        layers: Sequence[Layer],
        meet: Callable[[Use, list[frozenset[str]], Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.leaves = {name: parameter.detach().requires_grad_() for name, parameter in followed.items()}
        self.outside: dict[str, None] = {}
        self.problems: dict[str, str] = {}
        self._known = {id(tensor): Known(tensor, NO_NAMES) for tensor in _constants(model)}
        self._known |= {id(followed[name]): Known(leaf, frozenset([name])) for name, leaf in self.leaves.items()}
        self._known |= {id(leaf): Known(leaf, frozenset([name])) for name, leaf in self.leaves.items()}
        self._parameters = list(followed.values())  # keeps the ids above from being used again
        self._meet = meet
        self._owner = {
            id(parameter): (layer.parameters[local], layer.module)
            for layer in layers
            for local, parameter in layer.module.named_parameters(recurse=False)
            # Parameters of the model itself are used in methods that hooks do not see begin and end.
            if local in layer.parameters and layer.name
        }
        self._layers = layers
        self._running: list[nn.Module] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "Trace":
        for layer in self._layers:
            begin = self._begin(list(layer.parameters.values()))
            self._handles.append(layer.module.register_forward_pre_hook(begin))
            self._handles.append(layer.module.register_forward_hook(self._end, always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._known.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = tensors_in((args, kwargs) if kwargs else args)
        if func in _SHAPE_ONLY:
            tensors = tensors[: 0 if func in _FACTORIES else 1]
        entries = [self._entry(tensor) for tensor in tensors]
        known = [entry for entry in entries if entry is not None]
        if not known and (tensors or func not in _FACTORIES):
            return func(*args, **kwargs)
        names = NO_NAMES.union(*(entry.names for entry in known))
        if len(known) == len(tensors):
            return self._without_images(func, args, kwargs, names)
        if not torch.is_grad_enabled() or not names:
            result = func(*args, **kwargs)
            if isinstance(result, Tensor | tuple | list):
                self._note_outside(tensors, func)
            if _is_inplace(func):
                self._known.pop(id(tensors[0]), None)  # images were written into a constant
            return result
        return self._meeting(func, args, kwargs, tensors, entries, names)

    def _without_images(self, func: Any, args: Any, kwargs: Any, names: frozenset[str]) -> Any:
        args, kwargs = mapped((args, kwargs), self._alias)
        result = func(*args, **kwargs)
        tensors = tensors_in((args, kwargs))
        if isinstance(result, Tensor | tuple | list):
            self._note_outside(tensors, func)
        for tensor in tensors_in(result):
            entry = Known(tensor, names if tensor.requires_grad else NO_NAMES, self._copied(func, args, tensor))
            self._known[id(tensor)] = entry
        if _is_inplace(func) and tensors:
            self._known[id(tensors[0])] = Known(tensors[0], names if tensors[0].requires_grad else NO_NAMES)
        return result

    def _meeting(self, func: Any, args: Any, kwargs: Any, tensors: Any, entries: Any, names: frozenset[str]) -> Any:
        self._note_outside(tensors, func)
        if func in REWRITES:
            with self:
                rewritten = REWRITES[func](*args, **kwargs)
            return self._refused(func, args, kwargs, names) if rewritten is None else rewritten
        if func in _BROADCASTING or func in _JOINING or func in _PRODUCTS:
            copies = self._copies(func, args, kwargs, tensors, entries)
            if copies is not None:
                args, kwargs = mapped((args, kwargs), lambda tensor: copies.get(id(tensor), tensor))
                return func(*args, **kwargs)
        args, kwargs = mapped((args, kwargs), self._alias)
        tensors = tensors_in((args, kwargs))
        if _is_inplace(func) or not _depends(func):
            return self._refused(func, args, kwargs, names)
        roots = {id(tensor): entry for tensor in tensors if (entry := self._entry(tensor)) and entry.names}
        result = func(*mapped(args, lambda t: t.detach() if id(t) in roots else t), **mapped(kwargs, _detach_if(roots)))
        if not isinstance(result, Tensor):
            return self._refused(func, args, kwargs, names)
        use = use_of(func, args, kwargs, lambda tensor: id(tensor) in roots)
        if use is None:
            use = Repeated(func, args, kwargs, lambda tensor: id(tensor) in roots, result)
        return self._meet(use, [roots[id(root)].names for root in use.roots], result)

    def _refused(self, func: Any, args: Any, kwargs: Any, names: frozenset[str]) -> Any:
        self.problems |= {name: getattr(func, "__name__", str(func)) for name in sorted(names)}
        return func(*args, **kwargs)

    def _copies(self, func: Any, args: Any, kwargs: Any, tensors: Sequence[Tensor], entries: Sequence[Known | None]) -> Any:
        """One copy of each root a row, by the id of the root; None where broadcasting is not what happens."""
        rank = max(tensor.ndim for tensor in tensors)
        counts = {t.shape[0] for t, e in zip(tensors, entries, strict=True) if e is None and t.ndim == rank and rank > 0}
        rows = max(counts, default=0)
        if not rows or not counts <= {1, rows}:
            return None
        if func in _PRODUCTS:
            # Matrices on the right have a product rule; on the left, and in stacks, matmul broadcasts them.
            least = [2, 3]
            if rank < 3 or any(e and e.names and t.ndim < m for t, e, m in zip(tensors, entries, least, strict=False)):
                return None
        if func in _JOINING and _axis(func, args, kwargs) % (rank + (func is torch.stack)) == 0:
            return None
        if _is_inplace(func) and entries[0] is not None:
            return None
        planned: dict[int, tuple[Known, bool]] = {}
        for tensor, entry in zip(tensors, entries, strict=True):
            if entry is None or not entry.names:
                continue
            aligned = tensor.ndim == rank and tensor.shape[0] == rows
            if not aligned and (func in _JOINING or (tensor.ndim == rank and tensor.shape[0] != 1)):
                return None
            planned[id(tensor)] = (entry, aligned)
        copies = {}
        for key, (entry, aligned) in planned.items():
            if aligned and entry.copied is not None:
                use = Copies(entry.copied.tensor, aligned=False)
            else:
                use = Copies(entry.tensor, aligned)
            root = entry.tensor.detach()
            if not aligned:
                missing = rank - root.ndim
                shape = (rows, *(1,) * (missing - 1), *root.shape) if missing else (rows, *root.shape[1:])
                root = root.expand(shape) if missing < 2 else root.reshape((1,) * missing + root.shape).expand(shape)
            copies[key] = self._meet(use, [entry.names], root)
        return copies

    def _copied(self, func: Any, args: Any, result: Tensor) -> Known | None:
        if func not in _COPYING or not isinstance(args[0], Tensor):
            return None
        source = self._known.get(id(args[0]))
        if source is None or not source.names:
            return None
        shape = tuple(source.tensor.shape)
        shape = (1,) * (result.ndim - len(shape)) + shape
        return source if result.ndim and shape[0] == 1 and shape[1:] == tuple(result.shape[1:]) else None

    def is_root(self, tensor: Tensor) -> bool:
        """Whether `tensor` depends on followed parameters and on no image."""
        entry = self._entry(tensor)
        return entry is not None and bool(entry.names)

    def _entry(self, tensor: Tensor) -> Known | None:
        entry = self._known.get(id(tensor))
        if entry is None and isinstance(tensor, nn.Parameter):
            return Known(tensor, NO_NAMES)
        return entry

    def _alias(self, tensor: Tensor) -> Tensor:
        entry = self._known.get(id(tensor))
        return tensor if entry is None else entry.tensor

    def _note_outside(self, tensors: Sequence[Tensor], func: Any) -> None:
        """Parameters of layers with rules that take part in a computation while their own layer is not running."""
        if not torch.is_grad_enabled() or func in _NO_COMPUTATION:
            return
        for tensor in tensors:
            name, module = self._owner.get(id(tensor), ("", None))
            if name and not any(module is running for running in self._running):
                self.outside[name] = None

    def _begin(self, names: list[str]) -> Callable[[nn.Module, Any], None]:
        def begin(module: nn.Module, args: Any) -> None:
            # A layer that reads no image computes something that all images share: its rule would take its rows for images.
            if torch.is_grad_enabled() and args and isinstance(args[0], Tensor) and self._entry(args[0]) is not None:
                self.outside |= dict.fromkeys(names)
            self._running.append(module)

        return begin

    def _end(self, module: nn.Module, _: Any, __: Any) -> None:
        self._running.pop()


def _constants(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))


def _axis(func: Any, args: Any, kwargs: Any) -> int:
    return int(kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0)))


def _is_inplace(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name in _INPLACE_OPERATORS


def _depends(func: Any) -> bool:
    return getattr(func, "__name__", "") not in ("__get__", "__set__")


def _detach_if(roots: Mapping[int, Known]) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.detach() if id(tensor) in roots else tensor


T = torch.Tensor
_INPLACE_OPERATORS = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"}
_FACTORIES = {
    *(torch.arange, torch.linspace, torch.zeros, torch.ones, torch.full, torch.empty, torch.eye, torch.tril_indices),
    *(torch.triu_indices, torch.scalar_tensor, torch.logspace, torch.hann_window),
    *(torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like, T.new_zeros, T.new_ones, T.new_empty, T.new_full),
}
# Of these tensors only the first one's values count, of the likenesses of others not even these.
_SHAPE_ONLY = {T.type_as, T.expand_as, T.view_as, T.reshape_as, T.to} | {
    *(torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like, T.new_zeros, T.new_ones, T.new_empty, T.new_full),
}
_COPYING = {T.expand, T.expand_as, T.repeat, torch.tile, T.tile, torch.broadcast_to, T.broadcast_to}
_BROADCASTING = {
    *(torch.add, T.add, T.add_, torch.sub, T.sub, T.sub_, torch.rsub, T.__rsub__),
    *(torch.mul, T.mul, T.mul_, torch.div, T.div, T.div_),
    *(torch.multiply, T.multiply, torch.subtract, T.subtract, torch.true_divide, T.true_divide, T.__rdiv__, T.__rtruediv__),
    *(torch.pow, T.pow, T.__rpow__, torch.maximum, T.maximum, torch.minimum, T.minimum, torch.where, T.where),
    *(torch.lerp, T.lerp, torch.addcmul, T.addcmul, F.scaled_dot_product_attention, T.masked_fill, torch.masked_fill),
}
_PRODUCTS = {torch.matmul, T.matmul, T.__matmul__, torch.bmm, T.bmm}
_JOINING = {torch.cat, torch.concat, torch.concatenate, torch.stack, torch.hstack}
# These read a parameter without a gradient: its value by another name, or facts about it.
_NO_COMPUTATION = {
    torch.Tensor.detach,
    torch.Tensor.data.__get__,  # type: ignore[attr-defined]
    torch.Tensor.grad.__get__,  # type: ignore[union-attr]
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.size,
    torch.Tensor.stride,
}
