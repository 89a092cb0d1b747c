"""The bootstrap against a dense, slow loop that redraws lists of images and seeds, and against known cases."""

import numpy as np
import pytest

from anchored.evaluate.comparison import (
    STATISTICS,
    difference,
    generator,
    image_weights,
    resample,
    seed_weights,
)

TRAIN = (30, 5, 5, 60)


def slow_statistics(correct: list[bool], groups: list[int]) -> dict[str, float]:
    """The three accuracies of one model on a list of images, from their definitions."""
    accuracy = {g: np.mean([c for c, h in zip(correct, groups, strict=True) if h == g]) for g in set(groups)}
    return {
        "worst_group": min(accuracy.values()),
        "average": float(np.mean(correct)),
        "adjusted": sum(TRAIN[g] * accuracy[g] for g in accuracy) / sum(TRAIN),
    }


@pytest.mark.parametrize("statistic", STATISTICS)
def test_vectorised_bootstrap_equals_the_loop(statistic: str) -> None:
    """The same weights, spelled out as repeated images and seeds."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat([0, 1, 2, 3], [9, 4, 5, 7]))
    correct = rng.random((6, 25)) < 0.7
    arm, reference, draws = [0, 1, 2], [3, 4, 5], 40
    weights = np.concatenate(list(image_weights(groups, draws, generator(1, "images")))).astype(int)
    votes = seed_weights(3, draws, generator(1, "seeds")).astype(int)

    drawn = []
    for b in range(draws):
        images = np.repeat(np.arange(25), weights[b])
        seeds = np.repeat(np.arange(3), votes[b])
        values = [slow_statistics(list(correct[k][images]), list(groups[images]))[statistic] for k in range(6)]
        drawn.append(np.mean([values[arm[s]] - values[reference[s]] for s in seeds]))
    point = [slow_statistics(list(c), list(groups))[statistic] for c in correct]
    expected = [point[a] - point[r] for a, r in zip(arm, reference, strict=True)]

    resampled = resample(correct, groups, train_sizes=TRAIN, draws=draws, rng=generator(1, "images"))
    actual = difference(resampled, arm, reference, statistic=statistic, rng=generator(1, "seeds"))
    assert actual.difference == pytest.approx(np.mean(expected), abs=1e-12)
    assert actual.sd == pytest.approx(np.std(expected, ddof=1), abs=1e-12)
    assert (actual.low, actual.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=1e-12)
    assert (actual.wins, actual.ties) == (sum(e > 0 for e in expected), sum(e == 0 for e in expected))


def test_identical_predictions_differ_by_exactly_nothing() -> None:
    """Pairing must cancel what arms share: an unpaired bootstrap would give a wide interval here."""
    rng = np.random.default_rng(0)
    groups = np.arange(200) % 4
    correct = np.tile(rng.random((4, 200)) < 0.6, (2, 1))
    resampled = resample(correct, groups, train_sizes=TRAIN, draws=300, rng=rng)
    for statistic in STATISTICS:
        found = difference(resampled, range(4), range(4, 8), statistic=statistic, rng=rng)
        assert (found.difference, found.low, found.high, found.wins, found.ties) == (0.0, 0.0, 0.0, 0, 4)


def test_weights_keep_the_size_of_every_group() -> None:
    groups = np.array([0, 1, 1, 1, 0, 3])
    blocks = list(image_weights(groups, 600, generator(0)))
    weights = np.concatenate(blocks)
    assert len(blocks) > 1
    assert weights.shape == (600, 6)
    for group, size in ((0, 2), (1, 3), (3, 1)):
        assert (weights[:, groups == group].sum(axis=1) == size).all()
    assert weights[:, 1].mean() == pytest.approx(1, abs=0.1)
    assert (seed_weights(5, 100, generator(0)).sum(axis=1) == 5).all()


def test_intervals_cover_a_known_difference() -> None:
    """Two arms of accuracy .75 and .65 on fresh images and seeds: about 95 % of the intervals hold .1.

    With 80 trials, 85 % lies more than four standard errors below.
    """
    covered = 0
    for trial in range(80):
        rng = np.random.default_rng(trial)
        groups = np.zeros(150, int)
        correct = np.concatenate([rng.random((8, 150)) < 0.75, rng.random((8, 150)) < 0.65])
        resampled = resample(correct, groups, train_sizes=(1,), draws=200, rng=rng)
        found = difference(resampled, range(8), range(8, 16), statistic="average", rng=rng)
        covered += found.low <= 0.1 <= found.high
    assert covered / 80 >= 0.85


def test_one_seed_has_no_standard_deviation_but_an_interval_over_images() -> None:
    rng = np.random.default_rng(0)
    correct = np.stack([rng.random(100) < 0.9, rng.random(100) < 0.5])
    resampled = resample(correct, np.arange(100) % 4, train_sizes=TRAIN, draws=200, rng=rng)
    found = difference(resampled, [0], [1], statistic="average", rng=rng)
    assert np.isnan(found.sd)
    assert 0 < found.low < found.difference < found.high


def test_generators_depend_on_names_alone() -> None:
    """Python's hash changes with the process: results would, too. The number is that of any machine."""
    assert generator(7, "a", "b").integers(1 << 30) == generator(7, "a", "b").integers(1 << 30)
    assert len({generator(*key).integers(1 << 30) for key in ((7, "a", "b"), (7, "ab"), (8, "a", "b"), (7,))}) == 4
    assert generator(2022, "bootstrap images", "demo").integers(1 << 30) == 577644088
