"""What can be wrong with a Fisher, its model or its file: one class a cause, each text names the parameters or modules."""

from collections.abc import Iterable

from anchored.errors import ConfigError, InputError


class MissingFisher(InputError):
    """A parameter has no entry in the Fisher."""


class ShapeMismatch(InputError):
    """A parameter and its Fisher differ in shape."""


class ForeignFisher(InputError):
    """The Fisher was measured on another backbone."""


class UncoveredParameters(ConfigError):
    """The batched backend cannot vouch for a parameter.

    names: of the parameters at fault.
    """

    def __init__(self, message: str, hint: str = "", names: Iterable[str] = ()) -> None:
        super().__init__(message, hint)
        self.names = list(names)


class TrainingMode(ConfigError):
    """A module would make the loss of an image random, or dependent on the other images of its batch."""


class ChangedInPlace(ConfigError):
    """The input of a layer was overwritten before its gradient arrived."""


class CoupledImages(ConfigError):
    """The loss of one image reaches the rows of another."""


class BadLoss(ConfigError):
    """The loss function breaks its contract: one finite, differentiable value per image."""


class BadBatch(ConfigError):
    """A batch cannot be divided into its images."""


def listed(names: Iterable[str]) -> str:
    """`names` for a sentence: all of them, separated by commas."""
    return ", ".join(names)
