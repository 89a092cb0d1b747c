"""DINO's views against torchvision and Pillow, one image at a time: the same parameters give the same pixels, and the
parameters have the same distribution."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy import stats

from anchored.data.dino_views import DinoViewMaker, apply, draw_boxes, draw_dino
from anchored.data.draws import join
from anchored.data.photometric import blur
from anchored.data.recipes import view_maker
from anchored.data.store import Store
from anchored.data.views import ViewMaker
from anchored.fisher.measurement import Measurement
from anchored.plan.views import DinoViews, SceneViews

CPU = torch.device("cpu")
NAMES = ("brightness", "contrast", "saturation", "hue")
RATIO = (3 / 4, 4 / 3)
COUNT = 4000
# The file compares about a hundred distributions with fixed seeds: 5 % for one false alarm among all of them.
ALIKE = 5e-4


def policy(**changes):
    return DinoViews(recipe="dino", **changes).model_dump(mode="json")


def draws_of(count, views, size=(256, 256), seed=0):
    return join([draw_dino(np.random.default_rng([seed, number]), np.array([size]), views) for number in range(count)])


@pytest.fixture(scope="module")
def bank(photographs):
    return Store("photographs", photographs, None, {"layers": {"image": [0, 3]}})


def view_of_pillow(tv, image, draws, at, size):
    """The published transform with the parameters drawn for one view, (3, size, size) in [0, 1]."""
    top, left, height, width = draws.box[at].tolist()
    picture = Image.fromarray(image).crop((left, top, left + width, top + height))
    picture = _rest(tv, picture.resize((size, size), Image.Resampling.BICUBIC), draws, at)
    picture = picture.filter(ImageFilter.GaussianBlur(float(draws.sigma[at]))) if draws.blur[at] else picture
    picture = ImageOps.solarize(picture) if draws.solarize[at] else picture
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def view_of_torchvision(tv, image, draws, at, size):
    """The same on a tensor, which is not rounded after each operation."""
    picture = torch.from_numpy(image).permute(2, 0, 1)
    picture = tv.resized_crop(picture, *draws.box[at].tolist(), [size, size], tv.InterpolationMode.BICUBIC, antialias=True)
    picture = _rest(tv, picture / 255, draws, at)
    picture = blur(picture[None], torch.from_numpy(draws.sigma[at][None]))[0] if draws.blur[at] else picture
    return tv.solarize(picture, 0.5) if draws.solarize[at] else picture


def _rest(tv, picture, draws, at):
    picture = tv.hflip(picture) if draws.flip[at] else picture
    for number in draws.order[at] if draws.jitter[at] else ():
        picture = getattr(tv, f"adjust_{NAMES[number]}")(picture, float(draws.factors[at][number]))
    return tv.rgb_to_grayscale(picture, 3) if draws.grey[at] else picture


@pytest.mark.parametrize(
    ("oracle", "mean", "most"),
    # Pillow rounds to 8 bits after each operation, and its hue is one of 256; torchvision's luma is another in the 4th digit.
    [(view_of_torchvision, 1e-4, 5e-4), (view_of_pillow, 0.015, 0.06)],
)
def test_views_are_those_of_the_published_transform(bank, tv, oracle, mean, most):
    """All of it at once, in its order: blur before grey or solarize before blur would pass every test of one operation."""
    views = policy(global_size=112, local_size=48, local_crops=4, blur=(0.5, 1.0, 0.5), solarize=1.0)
    draws = draws_of(4, views, seed=4)
    for switch in (draws.flip, draws.jitter, draws.grey, draws.blur, draws.solarize):
        assert 0 < switch.mean() < 1
    assert (draws.blur & draws.solarize & draws.jitter).any()
    large, small = DinoViewMaker(bank, views, CPU)(np.arange(4), draws)
    assert large.shape == (4, 2, 3, 112, 112)
    assert small.shape == (4, 4, 3, 48, 48)
    for at in np.ndindex(4, 6):
        found, size = (large[at], 112) if at[1] < 2 else (small[at[0], at[1] - 2], 48)
        difference = (found - oracle(tv, bank.packed[at[0]], draws, at, size)).abs()
        assert difference.mean() < mean, at
        assert difference.flatten().quantile(0.99) < most, at


@pytest.mark.parametrize(("size", "scale"), [((300, 451), (0.05, 0.4)), ((300, 451), (0.4, 1.0)), ((256, 256), (0.4, 1.0))])
def test_boxes_have_the_distribution_of_torchvision(tv, size, scale):
    """Kolmogorov-Smirnov on area, aspect, place and relative place. A ratio uniform in itself instead of in its logarithm, or a
    box clipped to the image instead of drawn again, is refused."""
    from torchvision.transforms.v2 import RandomResizedCrop

    found = draw_boxes(np.random.default_rng(1), np.tile(size, (COUNT, 1)), np.array([scale]), RATIO)[:, 0]
    transform = RandomResizedCrop(224, scale, RATIO)
    blank = torch.empty(3, *size)
    torch.manual_seed(1)
    drawn = [transform.make_params([blank]) for _ in range(COUNT)]
    expected = np.array([[each[key] for key in ("top", "left", "height", "width")] for each in drawn])
    assert (found[:, 2:] > 0).all()
    assert (found[:, :2] >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= size).all()
    for one, other in zip(_quantities(found, size), _quantities(expected, size), strict=True):
        assert stats.ks_2samp(one, other).pvalue > ALIKE


def _quantities(boxes, size):
    top, left, height, width = boxes.T
    free = np.maximum(size - boxes[:, 2:], 1)
    return height * width, width / height, top, left, top / free[:, 0], left / free[:, 1]


@pytest.mark.parametrize("size", [(40, 200), (200, 40), (64, 64), (30, 31)])
def test_box_where_nothing_fits_is_torchvisions(tv, size):
    """A long image has no crop of 90 % of its area within the ratio; torchvision then takes the largest central one."""
    from torchvision.transforms.v2 import RandomResizedCrop

    scale = (1.5, 1.6)
    found = draw_boxes(np.random.default_rng(1), np.array([size]), np.array([scale]), RATIO)[0, 0]
    expected = RandomResizedCrop(224, scale, RATIO).make_params([torch.empty(3, *size)])
    assert found.tolist() == [expected[key] for key in ("top", "left", "height", "width")]


def test_factors_and_orders_have_the_distribution_of_torchvision(tv):
    from torchvision.transforms.v2 import ColorJitter

    views = policy()
    draws = draw_dino(np.random.default_rng(2), np.tile((256, 256), (COUNT, 1)), views)
    transform = ColorJitter(*(views[name] for name in NAMES))
    torch.manual_seed(2)
    expected = [transform.make_params([]) for _ in range(COUNT)]
    for number, name in enumerate(NAMES):
        other = [float(each[f"{name}_factor"]) for each in expected]
        assert stats.ks_2samp(draws.factors[:, 0, number], other).pvalue > ALIKE, name
    orders, found = np.unique(draws.order[:, 0], axis=0, return_counts=True)
    others, drawn = np.unique([each["fn_idx"].tolist() for each in expected], axis=0, return_counts=True)
    assert orders.tolist() == others.tolist()
    assert stats.chi2_contingency([found, drawn]).pvalue > ALIKE


def test_switches_have_the_published_probabilities():
    """The first global view is always blurred and never solarized; the second the other way round; local views half blurred."""
    views = policy()
    draws = draw_dino(np.random.default_rng(3), np.tile((256, 256), (COUNT, 1)), views)
    expected = {
        "flip": [0.5] * 10, "jitter": [0.8] * 10, "grey": [0.2] * 10,
        "blur": [1.0, 0.1] + [0.5] * 8, "solarize": [0.0, 0.2] + [0.0] * 8,
    }  # fmt: skip
    for name, probabilities in expected.items():
        for view, probability in enumerate(probabilities):
            chosen = getattr(draws, name)[:, view].sum()
            assert stats.binomtest(int(chosen), COUNT, probability).pvalue > ALIKE, (name, view)
    random.seed(3)
    radii = [random.uniform(0.1, 2.0) for _ in range(COUNT)]
    assert stats.ks_2samp(draws.sigma[:, 0], radii).pvalue > ALIKE


def test_draws_are_independent():
    """Flags that share a number would always come together: all marginal distributions would still be right."""
    draws = draw_dino(np.random.default_rng(5), np.tile((256, 256), (COUNT, 1)), policy(blur=(0.5, 0.5, 0.5), solarize=0.5))
    columns = [draws.flip, draws.jitter, draws.grey, draws.blur, draws.sigma, draws.order[..., 0]]
    columns += [*np.moveaxis(draws.factors, -1, 0), draws.box[..., 2] * draws.box[..., 3]]
    values = np.concatenate([np.stack(columns)[:, :, view] for view in (0, 1)] + [draws.solarize[None, :, 1]])
    correlations = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlations).max() < 4.5 / np.sqrt(COUNT)


def test_view_does_not_depend_on_its_batch(bank):
    """A Fisher in shards equals a Fisher in one piece only if every view is the same in any company, bit for bit."""
    views = policy(global_size=64, local_size=32, local_crops=3)
    rows = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2])
    maker = DinoViewMaker(bank, views, CPU)
    each = [maker.draw(np.random.default_rng([7, number]), rows[number : number + 1]) for number in range(len(rows))]
    whole = maker(rows, join(each))
    for size in (1, 2, 3, 5):
        parts = [maker(rows[at : at + size], join(each[at : at + size])) for at in range(0, len(rows), size)]
        for level in range(2):
            assert torch.equal(torch.cat([part[level] for part in parts]), whole[level]), size


def test_views_do_not_depend_on_the_parts_they_are_made_in(bank, monkeypatch):
    """Parts fit the cache of a CPU; on a GPU there is one."""
    draws = draws_of(4, policy(global_size=64), seed=8).views(0, 2)
    images = torch.from_numpy(bank.packed)
    whole = apply(images, draws, 64)
    monkeypatch.setattr("anchored.data.dino_views._CPU_PART", 1)
    assert torch.equal(apply(images, draws, 64), whole)


def test_images_of_a_batch_are_not_exchanged(bank):
    """Everything off but the crop of the whole image: the view is the image, reduced."""
    still = {"flip": 0, "jitter": 0, "grey": 0, "blur": (0, 0, 0), "solarize": 0}
    views = policy(**still, global_scale=(1, 1), ratio=(1, 1), global_size=256, local_crops=0)
    rows = np.array([2, 0, 3])
    maker = DinoViewMaker(bank, views, CPU)
    large, small = maker(rows, maker.draw(np.random.default_rng(0), rows))
    assert small is None
    expected = torch.from_numpy(bank.packed[rows]).permute(0, 3, 1, 2)[:, None].expand(-1, 2, -1, -1, -1) / 255
    assert torch.equal(large, expected)


def test_the_plan_chooses_the_recipe(bank, mini):
    assert isinstance(view_maker(bank, policy(), CPU), DinoViewMaker)
    assert isinstance(view_maker(bank, SceneViews().model_dump(mode="json"), CPU), ViewMaker)


def test_fim_of_dino_views_does_not_depend_on_batches_or_ranges(mini, change_plan):
    """Views, and the labels drawn after them, belong to the image."""
    views = policy(global_size=20, local_size=12, local_crops=2)
    batches = {}
    for batch in (24, 7):
        plan = change_plan({("fims", "fim-1", "views"): views, ("fims", "fim-1", "batch"): batch})
        batches[batch] = Measurement(plan, "fim-1", mini, CPU)
    (whole,) = batches[24].batches()
    assert whole["large"].shape == (24, 2, 3, 20, 20)
    assert whole["small"].shape == (24, 2, 3, 12, 12)
    ranges = [*batches[7].batches(0, 9), *batches[7].batches(9, None)]
    for key, values in whole.items():
        assert torch.equal(torch.cat([part[key] for part in ranges]), values), key
