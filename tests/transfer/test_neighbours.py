"""Weighted k-NN against scikit-learn's brute force in float64."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from anchored.transfer.neighbours import neighbour_votes


@pytest.mark.parametrize(("neighbours", "temperature"), [(1, 0.07), (20, 0.07), (20, 1e6), (7, 0.5)])
def test_votes_are_those_of_scikit_learn(neighbours: int, temperature: float) -> None:
    """A vote that forgets to normalise, or weighs by rank, agrees on easy data; these classes overlap."""
    rng = np.random.default_rng(3)
    labels, truth = rng.integers(0, 3, 120), rng.integers(0, 3, 90)
    # Different lengths: only cosines may count.
    fitted = (rng.normal(size=(120, 5)) + 0.7 * labels[:, None]) * rng.uniform(0.1, 9, (120, 1))
    measured = rng.normal(size=(90, 5)) + 0.7 * truth[:, None]
    oracle = KNeighborsClassifier(
        neighbours, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / temperature)
    ).fit(fitted, labels)
    votes = neighbour_votes(
        torch.from_numpy(fitted), torch.from_numpy(labels), torch.from_numpy(measured),
        classes=3, neighbours=neighbours, temperature=temperature,
    )  # fmt: skip
    shares = votes / votes.sum(1, keepdim=True)
    np.testing.assert_allclose(shares.numpy(), oracle.predict_proba(measured), atol=1e-9)


def test_few_training_images_are_all_neighbours() -> None:
    fitted = torch.eye(3)
    votes = neighbour_votes(fitted, torch.tensor([0, 1, 1]), fitted[:1], classes=2, neighbours=20, temperature=0.1)
    torch.testing.assert_close(votes, torch.tensor([[1.0, 2 * np.exp(-10.0)]], dtype=torch.float32))
