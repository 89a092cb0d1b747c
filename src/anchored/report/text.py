"""How numbers and names are written, in one place, so that the same number looks the same everywhere.

Accuracies are fractions in files and percent with one decimal in print. Nothing that prints as zero carries a sign.
"""

import math
from collections.abc import Mapping

from anchored.evaluate.study import Hyper

ARM_NAMES: Mapping[str, str] = {
    "erm": "ERM",
    "linear-probe": "Linear probe",
    "freeze": "Frozen stages",
    "l2sp": "L2-SP",
    "ewc": "EWC",
    "ewc-shuffled": "EWC (shuffled Fisher)",
}
RULE_NAMES: Mapping[str, str] = {
    "val-wga": "validation WGA",
    "val-average": "validation average",
    "oracle-test-wga": "oracle: test WGA",
}
NOT_AVAILABLE = "n/a"
MINUS = "\u2212"


def arm_name(arm: str) -> str:
    """The arm as tables print it; an unknown one as it is called in the plan."""
    return ARM_NAMES.get(arm, arm)


def rule_name(rule: str) -> str:
    """The selection rule as tables print it."""
    return RULE_NAMES.get(rule, rule)


def fixed(value: float, decimals: int = 1, *, sign: bool = False) -> str:
    """A number with fixed decimals, optionally with a plus sign; "n/a" for NaN, no sign on zero."""
    if math.isnan(value):
        return NOT_AVAILABLE
    rounded = round(value, decimals) + 0.0
    return f"{rounded:+.{decimals}f}" if sign and rounded else f"{rounded:.{decimals}f}"


def percent(value: float) -> str:
    """A fraction in percent: .7436 is "74.4"."""
    return fixed(100 * value)


def mean_sd(mean: float, sd: float) -> str:
    """Mean and sd in percent, "74.4 ± 1.6"; without the sd where there is one seed only."""
    return percent(mean) if math.isnan(sd) else f"{percent(mean)} ± {percent(sd)}"


def points(value: float, low: float, high: float) -> str:
    """A difference with its interval in percentage points: "+0.3 [-0.5, +1.1]"."""
    if math.isnan(value):
        return NOT_AVAILABLE
    interval = f"[{fixed(100 * low, sign=True)}, {fixed(100 * high, sign=True)}]"
    return f"{fixed(100 * value, sign=True)} {interval}"


def number(value: float) -> str:
    """A grid value, short: 3.0 is "3", 0.001 is "1e-3", 0.1 is "0.1"."""
    if value != 0 and not 0.01 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:g}"


def seeds_text(count: int) -> str:
    """How many seeds: "1 seed", "5 seeds"."""
    return f"{count} seed{'' if count == 1 else 's'}"


def hyper_text(hyper: Hyper, keys: list[str]) -> str:
    """The values of `keys` in `hyper`: "stages 2, lr 4e-3"."""
    return ", ".join(f"{key} {number(hyper[key])}" for key in keys if key in hyper)
