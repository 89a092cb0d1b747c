"""A device for tests of costs, and the rates of one that made records."""

from typing import Any

from anchored.cost.throughput import Device, built_in

TRUE = {
    "matmul.fp32": 3.1e9, "convolution.fp32": 1.7e9, "slower.hooks": 1.4, "slower.pretrain": 0.8, "read": 115.0e6, "state": 160.0e6,
    "views": 5.0e6, "draw": 900.0, "fit": 2.0e6, "rows": 7.0e4, "tables": 0.2, "start": 6.5, "setup": 2.5,
}  # fmt: skip


def unit_device(**values: float) -> Device:
    """A device that takes a second for everything, but for the given values by dotted key."""
    keys = built_in(False).constants()
    nested: dict[str, Any] = {"gpu": True}
    for key in keys:
        field, _, part = key.partition(".")
        constant = {"value": values.get(key, 1.0), "source": "a test"}
        nested[field] = {**nested.get(field, {}), part: constant} if part else constant
    return Device.model_validate(nested)
