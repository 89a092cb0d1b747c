"""Labels of numbers and grid points name exactly one of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchored.plan.naming import configuration_label, copy_names, number_label

# Everything that a configuration accepts as a rate or a strength, down to the smallest denormal.
NUMBERS = st.floats(min_value=0, allow_infinity=False, allow_nan=False).map(lambda value: value + 0.0)


def read_number(label: str) -> float:
    """The oracle: a label says its number in full."""
    return float(label.replace("p", "."))


@given(NUMBERS)
def test_number_label_can_be_read_back(value):
    """Two learning rates with one label would share their results: a rounded label once merged 1e-13 neighbours."""
    assert read_number(number_label(value)) == value
    assert re.fullmatch("[a-z0-9-]+", number_label(value))


@given(st.integers(min_value=0))
def test_integer_labels_can_be_read_back(value):
    """Stages are integers and keep their plain form."""
    assert int(number_label(value)) == value


@pytest.mark.parametrize(
    ("value", "label"),
    [(0.001, "1e-3"), (2.5, "2p5e0"), (30.0, "3e1"), (1.0, "1e0"), (0.0, "0e0"), (3, "3"), (10, "10"), (123.25, "1p2325e2")],
)
def test_labels_of_common_values(value, label):
    """Committed plans and finished results carry these names."""
    assert number_label(value) == label


@given(st.dictionaries(st.sampled_from(["lr", "strength"]), NUMBERS, min_size=1))
def test_configuration_label_can_be_read_back(hyper):
    """The parts are joined by the very sign that negative exponents use; no two grid points may meet."""
    pattern = "-".join(f"{short}(?P<{key}>[0-9p]+e-?[0-9]+)" for key, short in (("lr", "lr"), ("strength", "s")) if key in hyper)
    ordered = {key: hyper[key] for key in ("lr", "strength") if key in hyper}
    match = re.fullmatch(pattern, configuration_label(ordered))
    assert match is not None
    assert {key: read_number(text) for key, text in match.groupdict().items()} == ordered


def test_copies():
    """One copy keeps the plain name: it is what the user wrote."""
    assert copy_names("vit", 1) == ["vit"]
    assert copy_names("vit", 3) == ["vit-1", "vit-2", "vit-3"]
