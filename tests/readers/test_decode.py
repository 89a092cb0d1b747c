"""Decoding: the same images in the same order by any number of threads, digests of what was read, and faults by name."""

import hashlib
import io

import numpy as np
import pytest
from encoded_cases import SIZE, decoded, png
from PIL import Image

from anchored.errors import InputError
from anchored.plan.preprocessing import transform
from anchored.readers.preprocess import preprocess

FILES = [png(number) for number in range(40)]


@pytest.mark.parametrize("workers", [None, 1, 2, 5])
def test_threads_change_nothing(workers):
    """Against one image after the other, without a thread."""
    steps = transform("group-dro", "scenes", SIZE)
    expected = np.stack([preprocess(Image.open(io.BytesIO(data)).convert("RGB"), steps) for data in FILES])
    images = decoded(FILES, workers=workers)
    found = np.stack(list(images))
    assert images.shape == found.shape
    assert len(images) == len(found)
    assert np.array_equal(found, expected)


def test_digests_are_those_of_the_files():
    """What a table of sources is compared with; a second pass over the images gives them again, not twice."""
    images = decoded(FILES)
    for _ in range(2):
        list(images)
        assert images.digests == [hashlib.sha256(data).hexdigest() for data in FILES]


def test_all_faults_are_counted_and_the_first_are_named():
    """A run of an hour that stops at each bad image is run once for each."""
    files = list(FILES)
    files[3], files[7], files[20], files[33] = None, b"no image", files[20][:-30], b""
    images = decoded(files)
    seen = []
    with pytest.raises(InputError) as caught:
        seen.extend(images)
    assert caught.value.message == (
        "memory: 4 images are missing or cannot be read: 3.png (no such file or directory), 7.png (no image), "
        "20.png (image file is truncated)."
    )
    assert caught.value.exit_code == 3
    assert len(seen) == 40
    assert [number for number, digest in enumerate(images.digests) if digest is None] == [3]
    assert np.array_equal(seen[4], next(iter(decoded([FILES[4]]))))


def test_unchanged_files_are_counted_from_the_first():
    images = decoded(FILES)
    list(images)
    digests = list(images.digests)
    assert images.unchanged(digests) == 40
    assert images.unchanged(digests[:10]) == 10
    assert decoded([*FILES[:5], FILES[6], *FILES[6:]]).unchanged(digests) == 5
    assert decoded([*FILES[:5], None, *FILES[6:]]).unchanged(digests) == 5
    assert decoded(FILES[:7]).unchanged(digests) == 7
    assert images.unchanged([]) == 0


def test_images_can_be_left_half_way():
    """The consumer fails, a disk is full: reading ends, too."""
    images = decoded(FILES * 50)
    iterator = iter(images)
    next(iterator)
    iterator.close()
    assert len(images.encoded.reads) < 200
