"""What all config models share: no unknown keys, and an error that names the nearest valid one."""

import difflib
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the first number is the lower one, but {bounds[0]} > {bounds[1]}")
    return bounds


Identifier = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FractionRange = Annotated[tuple[Fraction, Fraction], AfterValidator(_ordered)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the configuration. Every default of the project is the default of a field of a Section."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            keys = [info.alias or name for name, info in cls.model_fields.items()]
            for key in value:
                if key not in keys:
                    near = difflib.get_close_matches(str(key), keys, n=1, cutoff=0.5)
                    known = ", ".join(keys)
                    advice = f"did you mean '{near[0]}'?" if near else f"known keys: {known}."
                    raise ValueError(f"unknown key '{key}'; {advice}")
        return value
