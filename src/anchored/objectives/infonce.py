"""InfoNCE between two views, both views' other images as negatives (NT-Xent; Chen et al. 2020, eq. 1), one value per image.

    loss_n = 1/2 sum over the two directions of  -log exp(z_n . z'_n / tau) / sum_{m != n-th anchor} exp(z_n . z_m / tau)

It couples the images of a batch, so it has no gradient of one image alone and no Fisher.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def infonce_losses(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Loss of each image.

    Args:
        first: (B, d) unit-norm projections of one view.
        second: (B, d) of the other.
        temperature: tau.

    Returns:
        (B,), in nats.

    Raises:
        ValueError: fewer than two images, so no negatives.
    """
    count = len(first)
    if count < 2:
        raise ValueError("InfoNCE needs at least 2 images in a batch")
    both = torch.cat([first, second])
    similarities = both @ both.T / temperature
    similarities.fill_diagonal_(float("-inf"))
    partner = torch.arange(2 * count, device=both.device).roll(count)
    losses = F.cross_entropy(similarities, partner, reduction="none")
    return (losses[:count] + losses[count:]) / 2
