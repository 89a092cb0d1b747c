"""k nearest neighbours with weighted votes, as self-supervised features are usually judged (Wu et al. 2018; Caron et al. 2021).

Each of the k training features z of largest cosine with x votes for its class:

    score_c(x) = sum of exp(cos(x, z) / T) over those z that are of class c
"""

import torch.nn.functional as F
from torch import Tensor


def neighbour_votes(
    fitted: Tensor, labels: Tensor, measured: Tensor, *, classes: int, neighbours: int, temperature: float
) -> Tensor:
    """Scores (M, classes).

    Args:
        fitted: (N, D) features of the training images.
        labels: (N,) their classes.
        measured: (M, D) features of the images to classify.
        classes: number of classes.
        neighbours: k; all training images where there are fewer.
        temperature: T.
    """
    cosines = F.normalize(measured, dim=1) @ F.normalize(fitted, dim=1).T
    nearest = cosines.topk(min(neighbours, len(fitted)), dim=1)
    # Minus 1: the largest possible vote is 1, so that small temperatures do not overflow.
    votes = ((nearest.values - 1) / temperature).exp()
    scores = votes.new_zeros(len(measured), classes)
    return scores.scatter_add_(1, labels[nearest.indices], votes)
