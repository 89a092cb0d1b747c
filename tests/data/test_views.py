"""Random views against a slow formula in numpy, one pixel at a time."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anchored.data.draws import join
from anchored.data.store import Store, open_store
from anchored.data.views import Draws, ViewMaker, draw
from anchored.errors import InputError
from anchored.plan.views import SceneViews

CPU = torch.device("cpu")
STILL = {
    "global_scale": (1, 1), "local_scale": (1, 1),
    "flip": 0, "contrast": 0, "brightness": 0, "grey": 0, "blur": 0, "background_swap": 0,
}  # fmt: skip
LIVELY = {"local_crops": 2, "flip": 0.5, "contrast": 0.4, "brightness": 0.3, "grey": 0.3, "blur": 0.5, "background_swap": 0.5}


def policy(**changes) -> dict:
    return SceneViews(**changes).model_dump(mode="json")


@pytest.fixture
def bank(mini) -> Store:
    return open_store(mini.data("bank"))


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The colour at pixel coordinates (x, y), the border repeated outside."""
    height, width = image.shape[:2]
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    u, v = x - left, y - top
    upper = image[top, left] * (1 - u) + image[top, right] * u
    lower = image[bottom, left] * (1 - u) + image[bottom, right] * u
    return upper * (1 - v) + lower * v


def slow_view(store: Store, row: int, draws: Draws, number: int, view: int, size: int) -> np.ndarray:
    """View `view` of image `number` of the draws, (size, size, 3) in [0, 1], straight from the definition."""
    at = number, view
    scene = store.layer("image")[row].astype(float)
    if draws.swap[at]:
        alpha = store.layer("mask")[row] / 255.0
        other = store.layer("background")[draws.background[at]].astype(float)
        scene = np.clip(scene - (1 - alpha) * store.layer("background")[row] + (1 - alpha) * other, 0, 255)
    scene /= 255
    side, whole = float(draws.side[at]), scene.shape[0]
    out = np.empty((size, size, 3))
    for i, j in itertools.product(range(size), range(size)):
        x, y = (2 * j + 1) / size - 1, (2 * i + 1) / size - 1
        x, y = (-side if draws.flip[at] else side) * x + draws.centre[at][0], side * y + draws.centre[at][1]
        out[i, j] = bilinear(scene, ((x + 1) * whole - 1) / 2, ((y + 1) * whole - 1) / 2)
    out = (out - out.mean()) * draws.contrast[at] + out.mean() + draws.brightness[at]
    if draws.grey[at]:
        out = np.repeat((out @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=-1)
    if draws.blur[at]:
        padded = np.pad(out, ((1, 1), (1, 1), (0, 0)), mode="edge")
        out = sum(
            weight * padded[i : i + size, j : j + size]
            for (i, j), weight in {(i, j): (1 + (i == 1)) * (1 + (j == 1)) / 16 for i in range(3) for j in range(3)}.items()
        )
    return np.clip(out, 0, 1)


def test_views_equal_the_slow_formula(bank):
    """All switches at once, large and small crops: signs of flips and offsets of half a pixel were wrong elsewhere."""
    views = policy(**LIVELY)
    rows = np.array([3, 4, 17, 40])
    draws = draw(np.random.default_rng(5), len(rows), views, len(bank.packed))
    for switch in (draws.swap, draws.flip, draws.grey, draws.blur):
        assert 0 < switch.mean() < 1
    large, small = ViewMaker(bank, views, CPU)(rows, draws)
    assert large.shape == (4, 2, 3, 20, 20)
    assert small is not None
    assert small.shape == (4, 2, 3, 12, 12)
    for number, view in itertools.product(range(4), range(4)):
        part, size = (large[:, view], 20) if view < 2 else (small[:, view - 2], 12)
        expected = slow_view(bank, int(rows[number]), draws, number, view, size)
        np.testing.assert_allclose(part[number].permute(1, 2, 0).numpy(), expected, atol=2e-6)


def test_view_does_not_depend_on_its_batch(bank):
    """A Fisher in shards equals a Fisher in one piece only if every view is the same in any company, bit for bit."""
    views = policy(**LIVELY)
    maker = ViewMaker(bank, views, CPU)
    rows = np.arange(11)
    each = [draw(np.random.default_rng([9, int(row)]), 1, views, len(bank.packed)) for row in rows]
    together = maker(rows, join(each))
    for number, row in enumerate(rows):
        alone = maker(np.array([row]), each[number])
        for whole, single in zip(together, alone, strict=True):
            assert whole is not None
            assert single is not None
            assert torch.equal(whole[number], single[0]), number


def test_swap_keeps_the_digit_and_replaces_the_background(bank):
    """Where the mask is 1 the digit stays; where it is 0 the other image's background shows, pixel for pixel."""
    views = policy(**STILL | {"background_swap": 1})
    rows = np.arange(8)
    draws = draw(np.random.default_rng(0), len(rows), views, len(bank.packed))
    large, _ = ViewMaker(bank, views, CPU)(rows, draws)
    shown = large.permute(0, 1, 3, 4, 2).numpy() * 255
    for number, view in itertools.product(rows, range(2)):
        mask = bank.layer("mask")[number, ..., 0]
        other = bank.layer("background")[draws.background[number, view]]
        assert np.abs(shown[number, view][mask == 0] - other[mask == 0]).max() < 1.01  # a mask below half a level is stored as 0
        # Elsewhere the share 1 - alpha comes from the other background, the share alpha is the digit's own.
        alpha = mask[..., None] / 255
        digit = bank.layer("image")[number] - (1 - alpha) * bank.layer("background")[number]
        assert np.abs(shown[number, view] - digit - (1 - alpha) * other)[mask > 0].max() < 2
    assert draws.swap.all()


@pytest.mark.parametrize("off", [key for key in STILL if not key.startswith("local")])
def test_switch_at_zero_is_the_identity(bank, off):
    """With everything off a view is the image; one switch alone changes it. So each switch can be left out of a study."""
    rows = np.arange(12)
    image = bank.layer("image")[rows].astype(np.float32) / 255

    def shown(views):
        draws = draw(np.random.default_rng(1), len(rows), views, len(bank.packed))
        return ViewMaker(bank, views, CPU)(rows, draws)[0].permute(0, 1, 3, 4, 2).numpy()

    still = shown(policy(**STILL))
    np.testing.assert_allclose(still, np.broadcast_to(image[:, None], still.shape), atol=1e-5)
    on = {"global_scale": (0.5, 0.6)}.get(off, 1)
    lively = shown(policy(**STILL | {off: on}))
    changed = np.abs(lively - image[:, None]).max((2, 3, 4)) > 0.01
    assert changed.mean() > 0.9, f"{off} changes {changed.mean():.0%} of the views"


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    st.integers(0, 2**32),
)
def test_crop_stays_inside_the_image(large, small, seed):
    """A crop over the edge repeats border pixels: streaks that no photograph has."""
    views = policy(global_scale=large, local_scale=small, local_crops=2)
    draws = draw(np.random.default_rng(seed), 5, views, 3)
    assert (np.abs(draws.centre) + draws.side[..., None] <= 1 + 1e-6).all()
    area = draws.side.astype(float) ** 2
    assert ((area[:, :2] >= large[0] - 1e-6) & (area[:, :2] <= large[1] + 1e-6)).all()
    assert ((area[:, 2:] >= small[0] - 1e-6) & (area[:, 2:] <= small[1] + 1e-6)).all()


def test_swap_without_masks_is_refused(mini):
    """The labelled dataset has no masks; zeros in their place would swap nothing and say nothing."""
    with pytest.raises(InputError, match="has no layer 'mask'"):
        ViewMaker(open_store(mini.data("scenes")), policy(background_swap=0.5), CPU)


def test_an_image_is_read_once_for_all_its_views(bank, monkeypatch):
    """Of a compressed store, reading is decompressing."""
    asked = []

    class Counted(np.ndarray):
        def __getitem__(self, rows):
            asked.append(rows)
            return np.asarray(self)[rows]

    maker = ViewMaker(bank, policy(**LIVELY | {"background_swap": 0}), CPU)
    rows = np.arange(4)
    draws = maker.draw(np.random.default_rng(0), rows)
    expected = maker(rows, draws)
    monkeypatch.setattr(maker, "_images", np.asarray(bank.layer("image")).view(Counted))
    large, small = maker(rows, draws)
    assert len(asked) == 1
    assert torch.equal(large, expected[0])
    assert torch.equal(small, expected[1])
