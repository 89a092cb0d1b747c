"""Which parameters of a model are new, belong to no backbone, and therefore have no Fisher and no anchor.

Three kinds, and nothing else: what the caller names; the classifier that a timm or torchvision model itself points at; and what
stands beside the backbone in a wrapper such as DINO's MultiCropWrapper. Everything else without a Fisher is a mistake.
"""

import difflib
from collections.abc import Collection, Sequence

from torch import nn

from anchored.errors import ConfigError
from anchored.fisher.names import prefixes

Head = str | Sequence[str] | None

# Exact classes, no guesses by name: the classifier of torchvision's ConvNeXt, for one, starts with a pre-trained norm.
_TORCHVISION = {"ResNet": "fc", "VisionTransformer": "heads"}


def head_parameters(model: nn.Module, covered: Collection[str], head: Head = None) -> set[str]:
    """Names of the parameters of `model` that are new.

    Args:
        model: a backbone, alone, with a classifier, or inside of a wrapper.
        covered: names of the parameters that have a Fisher. They are never taken for new unless `head` names them.
        head: names of the modules (or parameters) that are new, such as "head" or "classifier"; None: as the module docstring says.

    Raises:
        ConfigError: `model` has no part of a name in `head`.
    """
    names = [name for name, _ in model.named_parameters()]
    if head is not None:
        return {name for part in ([head] if isinstance(head, str) else head) for name in _below(model, names, part)}
    wrappers = prefixes(names)
    found = {name for prefix in wrappers for name in _classifier(model, prefix, names)}
    if found & set(covered):
        found = set()  # measured together with its classifier, which then is not new
    around = [prefix for prefix in wrappers if covered and all(name.startswith(prefix) for name in covered)]
    wrapper = max(around, key=len, default="")
    return found | {name for name in names if not name.startswith(wrapper)}


def _below(model: nn.Module, names: Sequence[str], part: str) -> list[str]:
    found = [name for name in names if name == part or name.startswith(f"{part}.")]
    if not found and part not in dict(model.named_modules()):
        near = difflib.get_close_matches(part, [name for name, _ in model.named_modules() if name], n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else "give the name of a module, as in model.named_modules()."
        raise ConfigError(f"the model has no part '{part}'.", hint)
    return found


def _classifier(model: nn.Module, prefix: str, names: Sequence[str]) -> set[str]:
    """Parameters of the classifier of the network below `prefix`."""
    try:
        network = model.get_submodule(prefix.rstrip("."))
    except AttributeError:  # a prefix of a name that is no module, such as a parameter called "model.x"
        return set()
    if type(network).__module__.startswith("torchvision.models.") and type(network).__name__ in _TORCHVISION:
        parts = [getattr(network, _TORCHVISION[type(network).__name__])]
    elif callable(getattr(network, "get_classifier", None)):
        found = network.get_classifier()  # type: ignore[operator]
        parts = list(found) if isinstance(found, tuple | list) else [found]
    else:
        return set()
    new = {id(parameter) for part in parts if isinstance(part, nn.Module) for parameter in part.parameters()}
    return {name for name in names if id(model.get_parameter(name)) in new}
