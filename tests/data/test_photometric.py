"""Operations with a parameter per view against torchvision's and Pillow's with one parameter a call."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps

from anchored.data.photometric import ADJUSTMENTS, blur, box_weights, brightness, contrast, grey, hue, saturation, solarize

# torchvision weighs red by .2989 in a luma, Pillow (and this package) by .299; the rest is rounding in 32 bits.
LUMA = 1.2e-4
FACTORS = {
    "brightness": (brightness, [0.0, 0.6, 1.0, 1.4]),
    "contrast": (contrast, [0.0, 0.6, 1.0, 1.4]),
    "saturation": (saturation, [0.0, 0.8, 1.0, 1.2]),
    "hue": (hue, [-0.5, -0.1, 0.0, 0.1]),
}


@pytest.fixture(scope="module")
def pixels(photographs):
    """Four views (4, 3, 128, 128) in [0, 1]; the first has grey, black, white and fully saturated stripes."""
    views = torch.from_numpy(photographs[:, :128, 64:192]).permute(0, 3, 1, 2).float() / 255
    views[0, :, :4] = views[0, :1, :4]
    views[0, :, 4:6], views[0, :, 6:8] = 0, 1
    for row, colour in enumerate(itertools.product((0.0, 1.0), repeat=3), start=8):
        views[0, :, row] = torch.tensor(colour)[:, None]
    return views


def per_view(values):
    return torch.tensor(values)[:, None, None, None]


@pytest.mark.parametrize("name", FACTORS)
def test_adjustment_is_that_of_torchvision(pixels, tv, name):
    """One factor for the whole batch would be faster and wrong; so would the mean over the batch in `contrast`."""
    change, factors = FACTORS[name]
    found = change(pixels, per_view(factors))
    for view, factor, actual in zip(pixels, factors, found, strict=True):
        expected = getattr(tv, f"adjust_{name}")(view, factor)
        assert (actual - expected).abs().max() < (LUMA if name in ("contrast", "saturation") else 2e-6), factor


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_adjustments_in_every_order(pixels, tv, order):
    """They do not commute: each clamps."""
    found, expected = pixels, pixels
    names = list(FACTORS)
    for number in order:
        factors = FACTORS[names[number]][1][::-1]
        found = ADJUSTMENTS[number](found, per_view(factors))
        pairs = zip(expected, factors, strict=True)
        expected = torch.stack([getattr(tv, f"adjust_{names[number]}")(view, factor) for view, factor in pairs])
    assert (found - expected).abs().max() < 10 * LUMA


def test_hue_keeps_grey_and_does_not_divide_by_zero(pixels):
    """A grey pixel has no angle: NaN or a tint would follow."""
    flat = pixels[:, :1].expand_as(pixels)
    assert torch.equal(hue(flat, per_view([0.5, 0.1, -0.1, 0.0])), flat)


def test_grey_is_that_of_torchvision_and_of_pillow(pixels, photographs, tv):
    assert (grey(pixels) - tv.rgb_to_grayscale(pixels)).abs().max() < LUMA
    expected = np.asarray(Image.fromarray(photographs[1]).convert("L")).astype(float)
    found = grey(torch.from_numpy(photographs[1:2]).permute(0, 3, 1, 2).float())[0, 0].numpy()
    assert np.abs(found - expected).max() < 0.51


def test_solarize_is_that_of_torchvision_and_of_pillow(pixels, photographs, tv):
    """Pillow's threshold is level 128 of 255: values from half a level below it on."""
    assert torch.equal(solarize(pixels), tv.solarize(pixels, 0.5))
    expected = np.asarray(ImageOps.solarize(Image.fromarray(photographs[0]))).astype(float)
    found = solarize(torch.from_numpy(photographs[:1]).permute(0, 3, 1, 2).float() / 255)[0].permute(1, 2, 0) * 255
    assert np.abs(found.numpy() - expected).max() < 1e-3


def slow_blur(line: np.ndarray, sigma: float) -> np.ndarray:
    """Three extended boxes along the last axis: each a window of length 2 (whole + edge) + 1, the border repeated."""
    length = np.sqrt(12 * sigma**2 / 3 + 1)
    whole = int((length - 1) // 2)
    edge = (2 * whole + 1) * (whole * (whole + 1) - sigma**2) / (6 * (sigma**2 / 3 - (whole + 1) ** 2))
    for _ in range(3):
        padded = np.pad(line, [(0, 0)] * (line.ndim - 1) + [(whole + 1, whole + 1)], mode="edge")
        out = np.zeros_like(line)
        for offset in range(-whole - 1, whole + 2):
            weight = 1.0 if abs(offset) <= whole else edge
            out += weight * padded[..., whole + 1 + offset : whole + 1 + offset + line.shape[-1]]
        line = out / (2 * (whole + edge) + 1)
    return line


SIGMAS = [0.1, 0.7, 1.5, 2.0]


def test_blur_is_three_extended_boxes(pixels):
    found = blur(pixels, torch.tensor(SIGMAS)).numpy()
    for view, sigma, actual in zip(pixels.double().numpy(), SIGMAS, found, strict=True):
        expected = slow_blur(slow_blur(view, sigma).swapaxes(-1, -2), sigma).swapaxes(-1, -2)
        np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize("sigma", [*SIGMAS, 3.3])
def test_blur_is_that_of_pillow(photographs, sigma):
    """Pillow rounds to 8 bits after each of its six boxes; up to the border the rest is the same."""
    expected = np.asarray(Image.fromarray(photographs[2]).filter(ImageFilter.GaussianBlur(sigma))).astype(float)
    view = torch.from_numpy(photographs[2:3]).permute(0, 3, 1, 2).float()
    difference = np.abs(blur(view, torch.tensor([sigma]))[0].permute(1, 2, 0).numpy() - expected)
    assert difference.max() < 4
    assert difference.mean() < 0.6


@pytest.mark.parametrize("sigma", [0.7, 1.2, 2.0])
def test_blur_is_close_to_torchvisions_gaussian(photographs, tv, sigma):
    """The definitions differ (boxes, a sampled kernel); the standard deviation they are named after is the same."""
    view = torch.from_numpy(photographs[2:3]).permute(0, 3, 1, 2).float() / 255
    expected = tv.gaussian_blur(view, [17, 17], [sigma, sigma])[..., 8:-8, 8:-8]
    assert (blur(view, torch.tensor([sigma]))[..., 8:-8, 8:-8] - expected).abs().mean() < 0.004


def test_boxes_have_the_variance_asked_for():
    sigma = torch.tensor([0.1, 1.0, 1.41, 1.42, 2.0, 5.0])
    weights = box_weights(sigma)
    distance = torch.arange(weights.shape[1])
    torch.testing.assert_close(weights[:, 0] + 2 * weights[:, 1:].sum(1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(3 * 2 * (weights * distance**2).sum(1), sigma.double() ** 2)
