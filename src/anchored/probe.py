"""Linear and k-nearest-neighbour probes of frozen features: what a backbone knows before anybody fine-tunes it."""

import numpy as np
from numpy.typing import NDArray

from anchored.evaluate.metrics import average_accuracy, worst_group_accuracy

_NEIGHBOURS = 20
_INVERSE_REGULARISATION = 0.1


def fit_logistic(features: NDArray[np.float32], labels: NDArray[np.int64], c: float):  # type: ignore[no-untyped-def]
    """Logistic regression on standardised features, as a scikit-learn pipeline.

    Args:
        features: (N, D).
        labels: (N,).
        c: inverse strength of the L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(features, labels)


def probe(
    fitted: NDArray[np.float32],
    fitted_labels: NDArray[np.int64],
    measured: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
) -> dict[str, dict[str, float]]:
    """Average and worst-group accuracy of both probes.

    Args:
        fitted: (N, D) features that the probes are fitted on.
        fitted_labels: (N,).
        measured: (M, D) features that they are measured on.
        labels: (M,).
        groups: (M,).
    """
    from sklearn.neighbors import KNeighborsClassifier

    logistic = fit_logistic(fitted, fitted_labels, _INVERSE_REGULARISATION)
    neighbours = KNeighborsClassifier(min(_NEIGHBOURS, len(fitted)), metric="cosine").fit(fitted, fitted_labels)
    return {
        "linear": _accuracies(logistic.predict(measured), labels, groups),
        "knn": _accuracies(neighbours.predict(measured), labels, groups),
    }


def _accuracies(predicted: NDArray, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> dict[str, float]:
    sizes = np.bincount(groups)
    hits = np.bincount(groups[predicted == labels], minlength=len(sizes))
    worst, _ = worst_group_accuracy(hits, sizes)
    return {"average": round(float(average_accuracy(hits, sizes)), 6), "worst_group": round(float(worst), 6)}
