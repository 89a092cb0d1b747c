"""The conventions of preprocessing as steps and in words; tests/readers/test_preprocess.py compares their pixels."""

from typing import get_args

import pytest

from anchored.plan.preprocessing import Convention, Kind, augmentation, transform, words

WORDS = {
    ("group-dro", "scenes"): "256x256 bilinear, centre 224",
    ("group-dro", "faces"): "centre 178, 224x224 bilinear",
    ("dfr", "scenes"): "256x256 bilinear, centre 224",
    ("dfr", "faces"): "256x256 bilinear, centre 224",
    ("kumar", "scenes"): "shorter side 224 bicubic, centre 224",
    ("kumar", "faces"): "224x224 bilinear",
    ("short-side", "scenes"): "shorter side 224 bicubic, centre 224",
    ("short-side", "faces"): "shorter side 224 bicubic, centre 224",
}


@pytest.mark.parametrize("convention", get_args(Convention))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_tables_name_what_was_done(convention: Convention, kind: Kind) -> None:
    """Two tables that cut their images differently must not look alike."""
    assert words(transform(convention, kind, 224)) == WORDS[convention, kind]


def test_width_comes_first() -> None:
    """A plan holds (height, width), as torchvision does; readers expect width x height."""
    assert words([{"step": "resize", "size": [96, 128], "filter": "bicubic"}]) == "128x96 bicubic"


def test_the_margin_is_that_of_the_published_code() -> None:
    """There it is `int(size * (256.0 / 224.0))`, in floating point."""
    sizes = range(1, 1025)
    found = [transform("group-dro", "scenes", size)[0]["size"] for size in sizes]
    assert found == [[int(size * (256.0 / 224.0))] * 2 for size in sizes]


def test_augmentations_in_words() -> None:
    """The families differ on faces only, by the lowest ratio."""
    text = "random 0.7-1 of the area at {}-1.33 bilinear, mirrored 0.5"
    assert words(augmentation("dfr", "scenes")) == words(augmentation("dfr", "faces")) == text.format(0.75)
    assert words(augmentation("group-dro", "scenes")) == text.format(0.75)
    assert words(augmentation("group-dro", "faces")) == text.format(1)
    assert words(augmentation("none", "faces")) == ""
