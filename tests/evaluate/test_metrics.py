"""Metrics against fairlearn and against their definitions, image by image."""

import math

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score

from anchored.evaluate import metrics

IMAGES = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        arrays(np.int64, n, elements=st.integers(0, 1)),
        arrays(np.int64, n, elements=st.integers(0, 1)),
        arrays(np.int64, n, elements=st.integers(0, 1)),
    )
)


def counts(correct: np.ndarray, group: np.ndarray, groups: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return np.bincount(group[correct], minlength=groups), np.bincount(group, minlength=groups)


@settings(max_examples=40, deadline=None)
@given(IMAGES)
def test_groups_equal_fairlearn(images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Fairlearn's MetricFrame is an independent implementation; it leaves out groups without images, as we do."""
    y, a, prediction = images
    group = 2 * y + a
    hits, sizes = counts(y == prediction, group)
    frame = MetricFrame(metrics=accuracy_score, y_true=y, y_pred=prediction, sensitive_features=group)
    worst, which = metrics.worst_group_accuracy(hits, sizes)
    accuracies = metrics.group_accuracies(hits, sizes)
    assert worst == pytest.approx(frame.group_min())
    assert accuracies[which] == worst
    assert metrics.average_accuracy(hits, sizes) == pytest.approx(frame.overall)
    assert {g: accuracies[g] for g in range(4) if sizes[g]} == pytest.approx(frame.by_group.to_dict())
    by_class = MetricFrame(metrics=accuracy_score, y_true=y, y_pred=prediction, sensitive_features=y)
    assert metrics.worst_class_accuracy(*counts(y == prediction, y, 2)) == pytest.approx(by_class.group_min())


@settings(max_examples=40, deadline=None)
@given(IMAGES, st.tuples(*[st.integers(0, 50)] * 4).filter(any))
def test_adjusted_average_is_the_mean_over_reweighted_images(
    images: tuple[np.ndarray, np.ndarray, np.ndarray], train: tuple[int, ...]
) -> None:
    """WILDS weights every test image by (training share of its group) / (test share of its group)."""
    y, a, prediction = images
    group = 2 * y + a
    hits, sizes = counts(y == prediction, group)
    adjusted = metrics.adjusted_average(hits, sizes, np.array(train))
    if any(train[g] and not sizes[g] for g in range(4)):
        assert math.isnan(adjusted)
        return
    weight = np.array([train[g] / sum(train) / (sizes[g] / len(y)) for g in group])
    assert adjusted == pytest.approx(float((weight * (y == prediction)).sum() / len(y)))


def test_groups_without_test_images_are_no_worst_group() -> None:
    """An empty group once counted as 0 % and became the worst of every model."""
    worst, which = metrics.worst_group_accuracy(np.array([8, 0, 6]), np.array([10, 0, 10]))
    assert (worst, which) == (0.6, 2)
    assert math.isnan(metrics.group_accuracies(np.array([0]), np.array([0]))[0])
    assert metrics.worst_group_accuracy(np.array([0]), np.array([0]))[1] == -1


def test_the_two_averages_differ_on_a_balanced_test_split() -> None:
    """Waterbirds in small: the majority dominates the adjusted average, the plain mean weighs test images alike."""
    hits, sizes = np.array([9, 5, 5, 9]), np.array([10, 10, 10, 10])
    assert metrics.average_accuracy(hits, sizes) == pytest.approx(0.7)
    assert metrics.adjusted_average(hits, sizes, np.array([95, 5, 5, 95])) == pytest.approx(0.95 * 0.9 + 0.05 * 0.5)


def test_metrics_take_many_models_at_once() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 4)
    hits = rng.integers(0, sizes + 1, (5, 3, 4))
    worst, which = metrics.worst_group_accuracy(hits, sizes)
    for place in np.ndindex(5, 3):
        one, group = metrics.worst_group_accuracy(hits[place], sizes)
        assert (worst[place], which[place]) == (one, group)
        assert metrics.average_accuracy(hits, sizes)[place] == metrics.average_accuracy(hits[place], sizes)
