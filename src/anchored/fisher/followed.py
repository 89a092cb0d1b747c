"""Followed parameters: from the gradients of their uses to the squares of their per-image gradients.

    d loss_n / d p = sum over uses of  (d q / d p)^T (d loss_n / d q)         squared and added over n

The graph from p to q holds no image, so it is computed once a batch; only its transpose runs once an image.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from anchored.fisher.rules.functions import Product, Use
from anchored.fisher.rules.products import add_vector_squares

# Entries of per-image gradients held at once, of all roots of a group together.
_HELD = 2**22


class Site:
    """A use and the gradient that arrives at it."""

    def __init__(self, use: Use, names: Sequence[frozenset[str]]) -> None:
        self.use = use
        self.names = names
        self.g: Tensor | None = None
        self.groups: list[Group] = []
        self.versions = [version(tensor) for tensor in use.inputs]

    @property
    def changed(self) -> bool:
        """Whether an input was changed in place after the call."""
        return [version(tensor) for tensor in self.use.inputs] != self.versions


class Group:
    """Followed parameters whose graphs are connected, and all their uses in one batch: (site, index of the root in its use)."""

    def __init__(self, names: Sequence[str], uses: Sequence[tuple[Site, int]]) -> None:
        self.names = list(names)
        self.uses = list(uses)
        self.finished = False
        for site, _ in uses:
            if self not in site.groups:
                site.groups.append(self)

    @property
    def complete(self) -> bool:
        """Whether every use has its gradient."""
        return all(site.g is not None for site, _ in self.uses)

    def release(self) -> None:
        """Forgets the activations of uses that no other group waits for."""
        for site, _ in self.uses:
            if all(group.finished for group in site.groups):
                site.g = None
                site.use.inputs, site.versions = [], []

    def add(self, leaves: Mapping[str, Tensor], images: int, sums: Mapping[str, Tensor]) -> None:
        """Adds the squares of the uses that the loss depends on to `sums`."""
        uses = [(site.use, index, site.g) for site, index in self.uses if site.g is not None]
        own = [leaves[name] for name in self.names]
        if not uses:
            return
        if len(own) == 1 and all(use.roots[index] is own[0] for use, index, _ in uses):
            _add_direct(uses, images, sums[self.names[0]])
            return
        roots = list({id(use.roots[index]): use.roots[index] for use, index, _ in uses}.values())
        for part in _parts(images, sum(root.numel() for root in roots)):
            totals = [_total([u for u in uses if u[0].roots[u[1]] is root], images, part) for root in roots]
            for gradients in zip(*(total.to(root.dtype) for total, root in zip(totals, roots, strict=True)), strict=True):
                back = torch.autograd.grad(roots, own, gradients, retain_graph=True, allow_unused=True)
                for name, gradient in zip(self.names, back, strict=True):
                    if gradient is not None:
                        gradient = gradient.to(sums[name].dtype)
                        sums[name].addcmul_(gradient, gradient)


def groups(sites: Sequence[Site]) -> list[Group]:
    """Divides the parameters of `sites` into groups that share no root."""
    members: dict[str, set[str]] = {}
    for names in (names for site in sites for names in site.names):
        joined = set(names).union(*(members.get(name, set()) for name in names))
        members |= {name: joined for name in joined}
    uses: dict[int, list[tuple[Site, int]]] = {}
    for site in sites:
        for index, names in enumerate(site.names):
            uses.setdefault(id(members[next(iter(names))]), []).append((site, index))
    distinct = {id(names): names for names in members.values()}
    return [Group(sorted(names), uses[key]) for key, names in distinct.items()]


def _add_direct(uses: Sequence[tuple[Use, int, Tensor]], images: int, acc: Tensor) -> None:
    """The root is the parameter itself."""
    first, index, _ = uses[0]
    key = first.product(index) if isinstance(first, Product) else None
    if (
        isinstance(first, Product)
        and key is not None
        and all(isinstance(use, Product) and type(use) is type(first) and use.product(i) == key for use, i, _ in uses)
    ):
        first.add_products(index, [(use, g) for use, _, g in uses], images, acc)
        return
    for part in _parts(images, acc.numel()):
        add_vector_squares(acc, _total(uses, images, part).reshape(-1, 1, *acc.shape))


def _total(uses: Sequence[tuple[Use, int, Tensor]], images: int, part: slice) -> Tensor:
    """(b, *shape): the gradient at one root, over all its uses."""
    parts = [use.per_image(index, g, images, part) for use, index, g in uses]
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _parts(images: int, entries: int) -> Iterator[slice]:
    step = max(1, _HELD // max(1, entries))
    return (slice(start, min(images, start + step)) for start in range(0, images, step))


def version(tensor: Tensor) -> int:
    """Counts the in-place changes of `tensor` and its views."""
    return 0 if tensor.is_inference() else tensor._version

