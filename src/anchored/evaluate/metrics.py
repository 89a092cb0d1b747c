"""Group metrics of one trained model, all from two small arrays of counts.

    sizes[..., g] = number of images of group g            hits[..., g] = number of them that are classified correctly
    accuracy_g    = hits_g / sizes_g                       (undefined, NaN, for a group without images)
    worst group   = min over groups with images of accuracy_g
    average       = sum_g hits_g / sum_g sizes_g
    adjusted      = sum_g n_g accuracy_g / sum_g n_g,      n_g = number of training images of group g
    worst class   = min over classes with images of (correct images of the class) / (images of the class)

The worst group is that of Sagawa et al. 2020 (group DRO) and means the same in every paper. "Average" does not:
published Waterbirds averages of similar models lie at 84 to 90 or at 97. So both are always reported:

- `average` is the plain mean over the test images, as in the DFR family of code and in SubpopBench;
- `adjusted` re-weights the groups by their training frequency, as in group DRO, WILDS (Waterbirds: 3498/184/56/1057);
- SubpopBench's `adjusted_accuracy` is a third thing, the unweighted mean over groups. It is not computed here.

A selection on test groups re-weighted by training frequency (published for Waterbirds) is a selection on the test
split; such a rule may only be used under a name that says so (`selection.py`).
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer] | Floats


def group_accuracies(hits: Counts, sizes: Counts) -> Floats:
    """accuracy_g = hits_g / sizes_g; NaN for groups without images. Shapes (..., groups), sizes also (groups,)."""
    correct, images = _paired(hits, sizes)
    return _ratio(correct, images)


def worst_group_accuracy(hits: Counts, sizes: Counts) -> tuple[Floats, npt.NDArray[np.int64]]:
    """min_g accuracy_g over the groups with images, and which group it is (the first if several; -1 without any image)."""
    accuracies = group_accuracies(hits, sizes)
    filled = np.where(np.isnan(accuracies), np.inf, accuracies)
    worst = np.min(filled, axis=-1)
    empty = np.isinf(worst)
    return np.where(empty, np.nan, worst), np.where(empty, -1, np.argmin(filled, axis=-1))


def average_accuracy(hits: Counts, sizes: Counts) -> Floats:
    """sum_g hits_g / sum_g sizes_g: the plain mean over images."""
    correct, images = _paired(hits, sizes)
    return _ratio(np.asarray(correct.sum(axis=-1)), np.asarray(images.sum(axis=-1)))


def adjusted_average(hits: Counts, sizes: Counts, train_sizes: Counts) -> Floats:
    """sum_g n_g accuracy_g / sum_g n_g with training sizes n_g.

    NaN if a group that was trained on has no images here: dropping it would quietly change the weights. A group without
    training images has weight 0, whatever its accuracy.
    """
    weights = np.asarray(train_sizes, np.float64)
    weights = weights / weights.sum()
    accuracies = np.where(weights > 0, group_accuracies(hits, sizes), 0.0)
    return np.asarray((accuracies * weights).sum(axis=-1))


def worst_class_accuracy(hits: Counts, sizes: Counts) -> Floats:
    """Minimum over classes with images of the class accuracy. Takes counts by class, not by group; needs no attribute labels."""
    worst, _ = worst_group_accuracy(hits, sizes)
    return worst


def _paired(hits: Counts, sizes: Counts) -> tuple[Floats, Floats]:
    """Both as floats of one shape: sizes are often those of one data set, hits those of many models."""
    correct, images = np.broadcast_arrays(np.asarray(hits, np.float64), np.asarray(sizes, np.float64))
    return correct, images


def _ratio(correct: Floats, images: Floats) -> Floats:
    ratio: Floats = np.full(correct.shape, np.nan)
    np.divide(correct, images, out=ratio, where=images > 0)
    return ratio
