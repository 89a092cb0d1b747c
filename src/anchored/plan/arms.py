"""The arms of an experiment: what each one trains, what anchors it, and the grid it is tuned over."""

from itertools import product
from typing import Annotated, Literal

from pydantic import Field, model_validator

from anchored.plan.base import NonNegative, Positive, Section

Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]
Strengths = Annotated[tuple[NonNegative, ...], Field(min_length=1)]
Stages = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Inverse = Annotated[tuple[Positive, ...], Field(min_length=1)]

Arm = Literal["erm", "linear-probe", "freeze", "l2sp", "ewc", "ewc-shuffled"]
ANCHORED_ARMS = ("ewc", "ewc-shuffled")


class Conditioning(Section):
    """What is done to the stored Fisher on load; the stored one stays raw."""

    kind: Literal["none", "floor", "clip", "layer-mean", "normalise"] = "normalise"
    """normalise: mean 1 over all parameters; the others as documented in the Fisher's manual."""
    value: NonNegative | None = None
    """The number that floor and clip need."""

    @model_validator(mode="after")
    def _value_where_needed(self) -> "Conditioning":
        if (self.kind in ("floor", "clip")) != (self.value is not None):
            raise ValueError(f"conditioning '{self.kind}' {'needs' if self.value is None else 'takes no'} value")
        return self


class Erm(Section):
    """Plain fine-tuning of all parameters."""

    lr: Rates
    """Learning rates of the backbone."""


class LinearProbe(Section):
    """Logistic regression on the frozen backbone's standardised features."""

    c: Inverse
    """Inverse strengths of its L2 penalty (scikit-learn's C)."""


class Freeze(Section):
    """Fine-tuning with the stem and the first stages fixed."""

    stages: Stages
    """Numbers of stages fixed after the stem; 0 fixes the stem (a ViT's embedding) only."""
    lr: Rates
    """Learning rates of the rest."""


class L2sp(Section):
    """Fine-tuning with an L2 penalty on the distance to the anchor (Li et al. 2018)."""

    lr: Rates
    """Learning rates of the backbone."""
    strength: Strengths
    """Penalty strengths, lambda."""


class Ewc(L2sp):
    """Fine-tuning with the Fisher-weighted distance to the anchor as penalty (Kirkpatrick et al. 2017)."""

    conditioning: Conditioning = Conditioning()
    """Conditioning of the Fisher."""


class Arms(Section):
    """The arms that take part; leave one out to drop it."""

    erm: Erm | None = None
    """Plain fine-tuning."""
    linear_probe: Annotated[LinearProbe | None, Field(alias="linear-probe")] = None
    """Frozen backbone."""
    freeze: Freeze | None = None
    """First stages frozen."""
    l2sp: L2sp | None = None
    """Anchored without a Fisher."""
    ewc: Ewc | None = None
    """Anchored with the Fisher."""
    ewc_shuffled: Annotated[Ewc | None, Field(alias="ewc-shuffled")] = None
    """Anchored with the Fisher permuted inside each tensor: tells whether its content matters."""

    def present(self) -> dict[str, Section]:
        """The arms that take part, by name, in the order of the tables."""
        arms = {}
        for field, info in type(self).model_fields.items():
            if getattr(self, field) is not None:
                arms[info.alias or field] = getattr(self, field)
        return arms


def grid(arm: Section) -> dict[str, tuple]:
    """The tuned hyper-parameters of an arm and their values."""
    return {key: value for key, value in arm if isinstance(value, tuple)}


def configurations(arm: Section) -> list[dict[str, float | int]]:
    """All points of an arm's grid, in the order of the configuration file."""
    axes = grid(arm)
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
