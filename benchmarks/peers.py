"""One way of computing the diagonal Fisher a function, all with one interface.

    method(model, batches) -> {parameter name: sum over images of the squared gradient}

`batches` yields (images, labels) with images of shape (B, V, 3, H, W) and labels (B, V). The loss of an image is the mean cross
entropy over its views. A method takes a batch, finishes it, and asks for the next: the caller measures the time in between.

What a library needs to be told is taken from its manual; what it cannot do is raised and becomes a row of the table. Names that a
method leaves out are counted as missing.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anchored.errors import ConfigError
from anchored.fisher import diagonal_fisher

Batch = tuple[Tensor, Tensor]
Batches = Iterable[Batch]
Sums = dict[str, Tensor]
Method = Callable[[nn.Module, Batches], Sums]


class NotPossible(Exception):
    """The library lacks what the comparison needs; the text says what."""


class NotOffered(Exception):
    """Part of this project that this version does not have: no row at all."""


def losses(model: nn.Module, batch: Batch) -> Tensor:
    """(B,) mean cross entropy over the views of an image."""
    images, labels = batch
    each = F.cross_entropy(model(images.flatten(0, 1)), labels.flatten(), reduction="none")
    return each.unflatten(0, labels.shape).mean(1)


def plain(model: nn.Module, batches: Batches) -> Sums:
    """What everything is divided by: one ordinary forward and backward pass of the batch, all parameters trainable."""
    for batch in batches:
        model.zero_grad()
        losses(model, batch).sum().backward()
    return {}


def anchored_hooks(model: nn.Module, batches: Batches) -> Sums:
    return _anchored(model, batches, "hooks")


def anchored_loop(model: nn.Module, batches: Batches) -> Sums:
    return _anchored(model, batches, "loop")


def anchored_signs(model: nn.Module, batches: Batches) -> Sums:
    """An estimate, whose error is that of the random signs."""
    try:
        return _anchored(model, batches, "signs")
    except ConfigError as error:
        raise NotOffered from error


def _anchored(model: nn.Module, batches: Batches, backend: Any) -> Sums:
    return dict(diagonal_fisher(model, batches, losses, backend=backend).sums)


def naive_loop(model: nn.Module, batches: Batches) -> Sums:
    """What is written by hand: `backward()` an image, `.grad` squared."""
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for images, labels in batches:
        for n in range(len(images)):
            model.zero_grad()
            losses(model, (images[n : n + 1], labels[n : n + 1])).sum().backward()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    sums[name] += parameter.grad**2
    return sums


def vmap(model: nn.Module, batches: Batches) -> Sums:
    """torch.func, four images at a time: all gradients of a chunk are held at once."""
    from torch.func import functional_call, grad
    from torch.func import vmap as over_images

    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(values: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return losses(lambda rows: functional_call(model, values, (rows,)), (images[None], labels[None])).sum()  # type: ignore[arg-type]

    gradients = over_images(grad(loss), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for images, labels in batches:
        for start in range(0, len(images), 4):
            found = gradients(parameters, images[start : start + 4], labels[start : start + 4])
            for name, gradient in found.items():
                # Not in place: the gradient of a class token may share its memory with that of the position embedding.
                sums[name] += gradient.square().sum(0)
    return sums


def backpack(model: nn.Module, batches: Batches) -> Sums:
    """SumGradSquared. Its loss must be a sum: a mean would scale the result by 1 / B^2."""
    from backpack import backpack as extension
    from backpack import extend
    from backpack.extensions import SumGradSquared

    extend(model)
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))
    sums: Sums = {}
    for images, labels in _single_views(batches):
        model.zero_grad()
        with extension(SumGradSquared()):
            loss(model(images), labels).backward()
        for name, parameter in model.named_parameters():
            if hasattr(parameter, "sum_grad_squared"):
                sums[name] = sums.get(name, 0) + parameter.sum_grad_squared
                del parameter.sum_grad_squared
    return sums


def nngeometry(model: nn.Module, batches: Batches) -> Sums:
    """PMatDiag of the Jacobian of the loss. Its released version takes the whole loader, so each batch is a loader of its own."""
    from nngeometry.backend import TorchHooksJacobianBackend
    from nngeometry.layercollection import LayerCollection
    from nngeometry.object import PMatDiag
    from nngeometry.object.vector import PVector
    from torch.utils.data import DataLoader, TensorDataset

    collection = LayerCollection.from_model(model, ignore_unsupported_layers=True)
    sums: Sums = {}
    for images, labels in _single_views(batches):

        def loss(rows: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(model(rows.contiguous(memory_format=torch.channels_last)), targets, reduction="none")[:, None]

        generator = TorchHooksJacobianBackend(model=model, function=loss, layer_collection=collection)
        loader = DataLoader(TensorDataset(images, labels), batch_size=len(images))
        diagonal = PMatDiag(generator=generator, examples=loader).get_diag() * len(images)
        for layer, values in PVector(collection, vector_repr=diagonal).to_dict().items():
            own = dict(model.get_submodule(layer).named_parameters(recurse=False))
            for local, value in zip([name for name in ("weight", "bias") if name in own], values, strict=True):
                name = f"{layer}.{local}"
                sums[name] = sums.get(name, 0) + value.view(own[local].shape)
    return sums


def opacus(model: nn.Module, batches: Batches) -> Sums:
    """Its hooks record in training mode only, and it refuses BatchNorm: those layers stay in eval mode, frozen and missing.

    Filters channels first: with channels last it is wrong in silence (ResNet-50: off by 100 % in the 3x3 layers).
    """
    from opacus import GradSampleModule

    model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad_(False)
    wrapped = GradSampleModule(model, loss_reduction="sum", strict=False)
    sums: Sums = {}
    for images, labels in _single_views(batches):
        F.cross_entropy(wrapped(images.contiguous()), labels, reduction="sum").backward()
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                name = name.removeprefix("_module.")
                sums[name] = sums.get(name, 0) + parameter.grad_sample.square().sum(0)
                parameter.grad_sample = parameter.grad = None
    return sums


def laplace(model: nn.Module, batches: Batches) -> Sums:
    """EFInterface, which needs no other library."""
    from laplace.curvature import EFInterface

    interface = EFInterface(model, "classification")
    sums: Sums = {}
    for images, labels in _single_views(batches):
        start, diagonal = 0, interface.diag(images, labels)[1]
        for name, parameter in model.named_parameters():
            part = diagonal[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
            sums[name] = sums.get(name, 0) + part
    return sums


def curvlinops(model: nn.Module, batches: Batches) -> Sums:
    """Its diagonal is that of the generalised Gauss-Newton matrix, and in no release yet."""
    package = importlib.import_module("curvlinops")
    if not hasattr(package, "GGNDiagonalLinearOperator"):
        raise NotPossible("the release has no exact diagonal, only estimators of one (Hutchinson, XDiag)")
    raise NotPossible("its diagonal is that of the Gauss-Newton matrix, another quantity")


# In the order of the table: a title for each.
METHODS: dict[str, tuple[str, Method]] = {
    "plain": ("plain forward + backward", plain),
    "hooks": ("**anchored, hooks**", anchored_hooks),
    "signs": ("**anchored, signs** (an estimate)", anchored_signs),
    "loop": ("**anchored, loop**", anchored_loop),
    "naive-loop": ("loop of batch 1, written by hand", naive_loop),
    "vmap": ("torch.func vmap, chunks of 4", vmap),
    "backpack": ("BackPACK", backpack),
    "nngeometry": ("nngeometry", nngeometry),
    "opacus": ("Opacus", opacus),
    "laplace": ("laplace-torch, EFInterface", laplace),
    "curvlinops": ("curvlinops", curvlinops),
}
PACKAGES = {
    "backpack": "backpack-for-pytorch", "nngeometry": "nngeometry", "opacus": "opacus", "laplace": "laplace-torch",
    "curvlinops": "curvlinops-for-pytorch",
}


def _single_views(batches: Batches) -> Iterator[Batch]:
    """Rows are images to these libraries.

    Raises:
        NotPossible: an image has several views.
    """
    for images, labels in batches:
        if images.shape[1] != 1:
            raise NotPossible("rows are images: several views of one image are not joined before the square")
        yield images[:, 0], labels[:, 0]


@contextmanager
def reported() -> Iterator[list[str]]:
    """Collects why a method fails, in one short line."""
    reasons: list[str] = []
    try:
        yield reasons
    except (NotOffered, KeyboardInterrupt, MemoryError):
        raise
    except NotPossible as error:
        reasons.append(str(error))
    except Exception as error:  # whatever a peer raises is a result
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        reasons.append(f"{type(error).__name__}: {first}"[:150])
