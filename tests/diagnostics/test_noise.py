"""How many images are enough: against Fishers whose noise is known."""

import numpy as np
import pytest
import torch

from anchored.diagnostics.noise import _chi_square, edges, split_half
from anchored.errors import ConfigError
from anchored.fisher import DiagonalFisher


class Stream:
    """Squared gradients of `count` images, drawn once: image n has the factor w_n on all entries, and noise of its own."""

    def __init__(self, count: int, seed: int, *, shared: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        common = 1 + shared * rng.uniform(-1, 1, (count, 1)) * np.sqrt(3)
        scales = 10.0 ** rng.uniform(-3, 3, 400)
        self.images = torch.from_numpy(common * scales * rng.exponential(size=(count, 400)))
        self.seen = np.zeros(count, int)

    def __call__(self, start: int, stop: int) -> DiagonalFisher:
        self.seen[start:stop] += 1
        total = self.images[start:stop].sum(0)
        return DiagonalFisher({"a": total[:100].reshape(10, 10).clone(), "b": total[100:].clone()}, stop - start, "loop")


@pytest.mark.parametrize("images", [4, 5, 16, 31, 64, 200, 512, 513, 10_000])
def test_blocks_are_disjoint_and_every_half_ends_at_one(images):
    ends = edges(images)
    assert ends == sorted(set(ends))
    assert ends[-1] <= images < 2 * ends[-1], "the largest power of two within"
    doubled = [ends[0] << k for k in range(20) if ends[0] << k <= ends[-1]]
    assert set(doubled) <= set(ends)
    assert len(doubled) >= 3
    assert len(ends) <= 40
    if images >= 128:
        assert ends[0] == 16


def test_too_few_images():
    with pytest.raises(ConfigError, match="a FIM of 3 images has no halves to compare"):
        split_half(Stream(3, 0), 3)


def test_every_image_is_measured_once():
    stream = Stream(100, 0)
    found = split_half(stream, 100)
    assert stream.seen.tolist() == [1] * 64 + [0] * 36
    assert found.images == 64
    whole = stream(0, 64)
    assert found.means == pytest.approx({name: float(whole.sums[name].mean()) / 64 for name in ("a", "b")})


def test_halves_compare_the_first_n_with_the_next_n():
    """Slowly, from the images themselves: a window shifted by one block would look as smooth."""
    stream = Stream(128, 1)
    found = split_half(stream, 128)
    assert [half.images for half in found.halves] == [16, 32, 64]
    for half in found.halves:
        n = half.images
        one, other = stream.images[:n].mean(0), stream.images[n : 2 * n].mean(0)
        assert half.difference == pytest.approx(np.median((2 * (one - other).abs() / (one + other)).numpy()))
        parts = [(one[part].mean(), other[part].mean()) for part in (slice(0, 100), slice(100, 400))]
        apart = [float(2 * (a - b) / (a + b)) for a, b in parts]
        assert half.noise == pytest.approx(np.sqrt(np.mean(np.square(apart)) / 2))
        assert half.overlap == len(set(one.topk(4).indices.tolist()) & set(other.topk(4).indices.tolist())) / 4
        assert half.rank > 0.9


def test_sigma_and_the_number_of_images_are_those_of_the_source():
    """sigma^2 = shared^2 + the noise of the entries' own, which the mean of a tensor keeps where few entries hold its mass."""
    found, truth = [], []
    for seed in range(12):
        stream = Stream(512, seed, shared=0.5)
        found.append(split_half(stream, 512))
        means = [stream.images[:, part].mean(1).numpy() for part in (slice(0, 100), slice(100, 400))]
        truth.append(np.sqrt(np.mean([(m.std(ddof=1) / m.mean()) ** 2 for m in means])))
    ratio = np.array([split.sigma for split in found]) / np.array(truth)
    assert ratio.mean() == pytest.approx(1.0, abs=0.08)
    for split in found:
        assert split.enough == pytest.approx((split.sigma / 0.05) ** 2, abs=1)
        assert split.low < split.enough < split.high
        assert split.blocks == 32
    covered = [split.low <= (sigma / 0.05) ** 2 <= split.high for split, sigma in zip(found, truth, strict=True)]
    assert sum(covered) >= 10


def test_the_measured_noise_falls_with_the_root_of_n():
    """Over many streams the exponent is that of the law."""
    exponents = [split_half(Stream(512, seed, shared=0.3), 512).exponent for seed in range(30)]
    assert np.mean(exponents) == pytest.approx(-0.5, abs=0.1)


def test_a_tensor_without_mass_is_left_out():
    """The last norm of a zero-initialised branch has no gradient; 0/0 must not reach the figures."""

    def measure(start: int, stop: int) -> DiagonalFisher:
        count = stop - start
        return DiagonalFisher({"a": torch.rand(3) * count + count, "dead": torch.zeros(2)}, count, "loop")

    found = split_half(measure, 64)
    assert set(found.sigma_of) == {"a"}
    assert np.isfinite(found.sigma)
    assert all(np.isfinite(half.noise) for half in found.halves)


def test_sums_of_the_measurement_are_not_changed():
    """They are added up in place elsewhere; a loss function may keep its own."""
    kept = []

    def measure(start: int, stop: int) -> DiagonalFisher:
        fisher = DiagonalFisher({"a": torch.ones(3) * (stop - start)}, stop - start, "loop")
        kept.append((fisher, stop - start))
        return fisher

    split_half(measure, 32)
    assert all(fisher.sums["a"].tolist() == [count] * 3 for fisher, count in kept)


@pytest.mark.parametrize(("freedom", "low", "high"), [(5, 0.831, 12.833), (31, 17.539, 48.232), (100, 74.222, 129.561)])
def test_chi_square_quantiles(freedom, low, high):
    """2.5 % and 97.5 % of the tables."""
    assert _chi_square(freedom, -1.959964) == pytest.approx(low, rel=0.05)
    assert _chi_square(freedom, 1.959964) == pytest.approx(high, rel=0.002)
