"""Devices: what each does in a second, and where that number comes from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from anchored.cost.work import Amounts, What
from anchored.errors import ConfigError
from anchored.files import write_text
from anchored.plan.base import Positive, Section

BUILT_IN = Path(__file__).with_name("throughput.yaml")
DEFAULT = "h100"
CORE = "cpu-core"
OPERATIONS = ("matmul", "convolution")


class Constant(Section):
    """A number and its origin."""

    value: Positive
    """In the unit of its key."""
    source: str
    """Measured on what, or assumed."""


Rates = Annotated[dict[str, Constant], Field(min_length=1)]


class Device(Section):
    """What one device does: a GPU with the cores of its job, or a single core. Units: the head of throughput.yaml."""

    gpu: bool
    """Whether jobs that ask for a GPU occupy it; without one every job does."""
    matmul: Rates
    """Matrix products by precision."""
    convolution: Rates
    """Convolutions by precision."""
    slower: dict[str, Constant]
    """Ways to run a network that take longer than plain training."""
    read: Constant
    """Packed images."""
    state: Constant
    """Saved states."""
    views: Constant
    """Random views."""
    decode: Constant
    """Image files."""
    draw: Constant
    """Scenes of DigitScenes."""
    fit: Constant
    """Logistic regressions."""
    rows: Constant
    """Stored predictions."""
    tables: Constant
    """Tables and figures."""
    start: Constant
    """Seconds of a process around its step."""
    setup: Constant
    """Seconds that a step takes to load what it needs, where that is a network."""

    def seconds(self, amounts: Amounts) -> float:
        """What the amounts take, one after the other."""
        return sum(amount * self.seconds_each(what) for what, amount in amounts.items())

    def seconds_each(self, what: What) -> float:
        """Seconds of one unit.

        Raises:
            ConfigError: the device says nothing about this way to run a network.
        """
        if what.name in ("start", "setup"):
            return float(getattr(self, what.name).value)
        if what.name not in OPERATIONS:
            return 1 / getattr(self, what.name).value
        rates: Mapping[str, Constant] = getattr(self, what.name)
        rate = rates.get(what.precision) or rates.get("fp32")
        if rate is None:
            raise ConfigError(f"the device has no `{what.name}.{what.precision}` and no fp32.", "add one to the throughput file.")
        if what.way and what.way not in self.slower:
            raise ConfigError(f"the device has no `slower.{what.way}`.", "add it to the throughput file; 1 is as fast as training.")
        return (self.slower[what.way].value if what.way else 1.0) / rate.value

    def constants(self) -> dict[str, Constant]:
        """All numbers by dotted key."""
        found: dict[str, Constant] = {}
        for key, value in self:
            if isinstance(value, Constant):
                found[key] = value
            elif isinstance(value, dict):
                found |= {f"{key}.{part}": constant for part, constant in value.items()}
        return found


class Devices(Section):
    """A throughput file."""

    devices: Annotated[dict[str, Device], Field(min_length=1)]
    """Devices by name."""


def load_device(file: Path | None, name: str | None) -> tuple[str, Device]:
    """The device `name` of a throughput file and of the built-in one; without a name the file's only one, or the default.

    Raises:
        ConfigError: the file is missing or breaks a rule, or there is no such device.
    """
    own = _load(file) if file else {}
    if name is None:
        name = next(iter(own)) if len(own) == 1 else DEFAULT
    devices = _load(BUILT_IN) | own
    if name not in devices:
        raise ConfigError(f"there is no device '{name}'.", f"known: {', '.join(devices)}; or pass --throughput FILE.")
    return name, devices[name]


def built_in(gpu: bool) -> Device:
    """The device that lends the rates which nobody measured: the default GPU, or one core."""
    return load_device(None, DEFAULT if gpu else CORE)[1]


def save_device(file: Path, name: str, device: Device) -> None:
    """Writes a throughput file with one device."""
    values: Any = {"devices": {name: device.model_dump(mode="json")}}
    write_text(file, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))


def _load(file: Path) -> dict[str, Device]:
    try:
        return Devices.model_validate(yaml.safe_load(file.read_text())).devices
    except FileNotFoundError as error:
        raise ConfigError(f"{file} is missing.", "`anchored plan --calibrate results --throughput FILE` writes one.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{file}: {where or 'top level'}: {message}.", f"its form is that of {BUILT_IN.name}.") from error
