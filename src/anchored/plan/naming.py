"""Identities and seeds. Identities match `[a-z0-9-]+`: DVC looks parameters up by dotted path, so a dot would break them.

They are looked up, never parsed. No path and no machine is part of an identity.
"""

import hashlib
from collections.abc import Mapping
from decimal import Decimal

_SHORT = {"lr": "lr", "strength": "s", "stages": "k", "c": "c"}


def derive_seed(*parts: str | int) -> int:
    """A seed in [0, 2^31) that depends on all `parts` and on nothing else."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def number_label(value: float) -> str:
    """A number without dots or plus signs: 0.001 is `1e-3`, 2.5 is `2p5e0`, 30 is `3e1`. Different floats differ."""
    if isinstance(value, int):
        return str(value)
    # repr has the fewest digits that tell a float from every other.
    mantissa, exponent = f"{Decimal(repr(value)).normalize():e}".split("e")
    return f"{mantissa.replace('.', 'p')}e{int(exponent)}"


def configuration_label(hyper: Mapping[str, float | int]) -> str:
    """The identity of a grid point, from its values: adding a point to a grid renames no other."""
    return "-".join(_SHORT[key] + number_label(value) for key, value in hyper.items())


def copy_names(name: str, copies: int) -> list[str]:
    """`name` itself for one copy, else `name-1`, `name-2`, ..."""
    return [name] if copies == 1 else [f"{name}-{number + 1}" for number in range(copies)]


def shard_name(fim: str, number: int | str) -> str:
    """The identity of the `number`-th part of a FIM, from 1."""
    return f"{fim}-shard-{number}"
