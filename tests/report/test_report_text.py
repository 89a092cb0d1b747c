"""How single numbers are written."""

import math

import pytest

from anchored.report.text import arm_name, fixed, mean_sd, number, percent, points, rule_name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (0.1, "0.1"),
        (0.01, "0.01"),
        (0.001, "1e-3"),
        (1e-5, "1e-5"),
        (2.5e-4, "2.5e-4"),
        (0, "0"),
        (100.0, "100"),
        (1e5, "1e5"),
    ],
)
def test_grid_values_are_short(value: float, text: str) -> None:
    assert number(value) == text
    assert float(text) == value


def test_zero_has_no_sign() -> None:
    """-0.0 stood in a table once and read like a loss."""
    assert fixed(-0.04, sign=True) == "0.0"
    assert fixed(0.04, sign=True) == "0.0"
    assert fixed(-0.06, sign=True) == "-0.1"
    assert points(0.0, -0.00049, 0.0006) == "0.0 [0.0, +0.1]"


def test_missing_numbers_are_said_to_be_missing() -> None:
    assert percent(math.nan) == "n/a"
    assert points(math.nan, 0, 0) == "n/a"
    assert mean_sd(0.5, math.nan) == "50.0"


def test_unknown_names_stay_as_they_are() -> None:
    assert arm_name("lwf") == "lwf"
    assert rule_name("val-loss") == "val-loss"
