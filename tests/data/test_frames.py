"""Compressed squares give back every pixel, and say so when they cannot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anchored.data.frames import Frames, decode, encode
from anchored.errors import InputError


def frames_of(images, **options):
    parts = [encode(image) for image in images]
    ends = np.cumsum([len(part) for part in parts])
    return Frames(np.frombuffer(b"".join(parts), np.uint8), ends, images.shape, where="birds", **options)


@settings(deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_every_pixel_comes_back(image):
    """Differences are taken modulo 256: a border or a sign would be lost at the extremes first."""
    out = np.empty_like(image)
    decode(encode(image), out)
    assert np.array_equal(out, image)


def test_photographs_come_back_in_less_space(photographs):
    """Twice is little for photographs; without the differences it would be 1.2 times."""
    stored = frames_of(photographs)
    assert np.array_equal(stored[:], photographs)
    assert sum(len(encode(image)) for image in photographs) < photographs.nbytes / 1.8


IMAGES = np.random.default_rng(0).integers(0, 256, (23, 5, 4, 3), np.uint8)

INDICES = {
    "integer": 3,
    "last": -1,
    "numpy integer": np.int64(5),
    "slice": slice(2, 17, 3),
    "backwards": slice(None, None, -1),
    "empty slice": slice(4, 4),
    "rows": np.array([4, 4, 22, 0, -2]),
    "list": [3, 1],
    "two dimensions": np.array([[1, 2], [3, 0]]),
    "booleans": np.arange(23) % 3 == 0,
    "none": np.array([], np.int64),
    "many": np.random.default_rng(1).integers(0, 23, 500),
}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", INDICES)
def test_rows_are_those_of_an_array(name, workers):
    """What reads a store asks for rows in every way that numpy knows."""
    stored, rows = frames_of(IMAGES, workers=workers), INDICES[name]
    found = stored[rows]
    assert found.dtype == np.uint8
    assert found.shape == IMAGES[rows].shape
    assert np.array_equal(found, IMAGES[rows])


@pytest.mark.parametrize("rows", [23, -24, [0, 23]])
def test_rows_beyond_the_last_are_refused(rows):
    with pytest.raises(IndexError):
        frames_of(IMAGES)[rows]


def test_a_store_can_be_iterated_over():
    stored = frames_of(IMAGES)
    assert len(stored) == 23
    assert np.array_equal(np.stack(list(stored)), IMAGES)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_changed_bit_is_found(workers):
    """A large file is not hashed when it is opened: a flipped bit must not become a pixel."""
    parts = [encode(image) for image in IMAGES]
    ends = np.cumsum([len(part) for part in parts])
    for position in range(ends[0], ends[1]):
        data = np.frombuffer(b"".join(parts), np.uint8).copy()
        data[position] ^= 1 << (position % 8)
        stored = Frames(data, ends, IMAGES.shape, where="birds", workers=workers)
        try:
            found = stored[[0, 1, 2]]
        except InputError as error:
            message, hint = error.message, error.hint
        else:  # bits of a frame's header that nobody reads
            assert np.array_equal(found, IMAGES[:3])
    assert "the images of dataset 'birds' are damaged" in message
    assert hint == "run `anchored prepare birds --force`."
