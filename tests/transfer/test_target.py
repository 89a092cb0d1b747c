"""The unrelated task: what it holds, and that training and test photographs share no pixel."""

import numpy as np
import pytest

from anchored.transfer import target
from anchored.transfer.target import _TILE, PHOTOGRAPHS, _photograph, _tiles, photograph_task


def test_splits_and_labels() -> None:
    store = photograph_task(3, draws=2, train=4, test=5, size=16)
    assert store.layer("image").shape == (2 * len(PHOTOGRAPHS) * (4 + 1 + 5), 16, 16, 3)
    for split, count in (("train", 4), ("val", 1), ("test", 5)):
        labels = store.column("y", store.rows(split, 1))
        assert np.bincount(labels).tolist() == [count] * len(PHOTOGRAPHS)


def test_images_depend_on_the_seed_alone() -> None:
    """A draw keeps its crops when a study is extended by seeds: arms stay paired with those of an earlier run."""
    one, two = (photograph_task(3, draws=draws, train=4, test=5, size=16) for draws in (1, 2))
    other = photograph_task(4, draws=1, train=4, test=5, size=16)
    first = [store.layer("image")[store.rows("train", 0)] for store in (one, two, other)]
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    draws = [two.layer("image")[two.rows("train", draw)] for draw in (0, 1)]
    assert not np.array_equal(*draws)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_train_and_test_tiles_are_disjoint(name: str) -> None:
    """Overlapping crops would let a network remember pixels; a handful of tiles would be no task."""
    photograph = _photograph(name)
    covered = np.zeros((photograph.height, photograph.width), int)
    for parity in (0, 1):
        tiles = _tiles(photograph, parity=parity)
        assert len(tiles) >= 10
        for left, top in tiles:
            covered[top : top + _TILE, left : left + _TILE] += 1
    assert covered.max() == 1


def test_no_training_crop_is_a_test_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    """With crops as large as tiles a crop is a tile: the same tile in both splits would be the same image."""
    monkeypatch.setattr(target, "_CROP", _TILE)
    store = photograph_task(3, draws=2, train=40, test=40, size=_TILE)
    for draw in (0, 1):
        train, test = ({image.tobytes() for image in store.layer("image")[store.rows(split, draw)]} for split in ("train", "test"))
        assert not train & test
        assert len(train) > 9 * 5
