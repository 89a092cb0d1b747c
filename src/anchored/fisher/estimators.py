"""Labels drawn from the model's own prediction: what turns a squared gradient into the true Fisher.

    loss = -log p(y),   y ~ p,        E_y [ (d loss / d theta)^2 ] = diag F

One draw a row is unbiased. The draw is a constant for the gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sampled_nll(logits: Tensor, uniforms: Tensor) -> Tensor:
    """-log p(y) with y drawn from p = softmax(logits), row by row.

    Args:
        logits: (rows, classes); computed in fp32 at least.
        uniforms: (rows,) in [0, 1), one a row. Numbers and not a generator, because a stored draw belongs to its image: the
            result then depends neither on the batch size nor on the backend.

    Returns:
        (rows,)
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_p = F.log_softmax(logits, dim=-1)
    cumulative = log_p.detach().exp().cumsum(-1)
    # Rounding leaves the last entry near 1, not at it; scaling by it keeps every draw inside the classes.
    drawn = torch.searchsorted(cumulative, uniforms.to(cumulative)[:, None] * cumulative[:, -1:], right=True)
    drawn = drawn.clamp_max(logits.shape[-1] - 1)
    return -log_p.gather(-1, drawn).squeeze(-1)
