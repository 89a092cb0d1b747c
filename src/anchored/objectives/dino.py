"""Self-distillation without labels (Caron et al. 2021, eq. 1-4), one value per image.

    q_t = softmax((teacher_t - centre) / T_teacher)        for each global view t, without gradient
    p_v = softmax(student_v / T_student)                   for each view v
    loss = mean over pairs (t, v != t) of H(q_t, p_v)

The published loss also averages over the batch and moves the centre as a side effect; here the centre is an argument and
moves in `update_centre`, so that measuring a Fisher does not change the function measured.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def dino_losses(
    student: Tensor, teacher: Tensor, centre: Tensor, *, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Loss of each image.

    Args:
        student: logits (B, V, K) of all views, the G global ones first.
        teacher: logits (B, G, K) of the global views; no gradient flows into them.
        centre: (K,), subtracted from the teacher's logits.
        student_temperature: T_student.
        teacher_temperature: T_teacher.

    Returns:
        (B,), in nats.

    Raises:
        ValueError: there is only one view, so no pair of different views.
    """
    views, globals_ = student.shape[1], teacher.shape[1]
    if views < 2 or globals_ > views:
        raise ValueError(f"DINO needs at least 2 student views and no more teacher views, got {views} and {globals_}")
    targets = F.softmax((teacher.detach() - centre) / teacher_temperature, dim=-1)
    log_p = F.log_softmax(student / student_temperature, dim=-1)
    # Sum over all pairs minus the pairs of a view with itself: V + G dot products instead of V * G.
    every = -(targets.sum(1) * log_p.sum(1)).sum(-1)
    same = -(targets * log_p[:, :globals_]).sum((1, 2))
    return (every - same) / (globals_ * (views - 1))


def sampled_losses(student: Tensor, uniforms: Tensor, *, student_temperature: float) -> Tensor:
    """Negative log-likelihood of prototypes drawn from the student's own prediction: its square estimates the true Fisher.

        loss = mean over views v of -log p_v(k_v),   k_v ~ p_v

    Args:
        student: logits (B, V, K).
        uniforms: (B, V) in [0, 1), one draw for each view; fixed per image, so the result does not depend on the batch.
        student_temperature: T_student.

    Returns:
        (B,), in nats.
    """
    log_p = F.log_softmax(student / student_temperature, dim=-1)
    with torch.no_grad():
        cumulative = log_p.exp().cumsum(-1)
        # Label k owns [P(k - 1), P(k)), so a label of probability 0 owns nothing, not even the uniform 0.
        below = cumulative <= uniforms.unsqueeze(-1) * cumulative[..., -1:]
        drawn = below.sum(-1).clamp(max=student.shape[-1] - 1)
    return -log_p.gather(-1, drawn.unsqueeze(-1)).squeeze(-1).mean(1)


def update_centre(centre: Tensor, teacher: Tensor, momentum: float) -> Tensor:
    """The centre (K,) after one batch of teacher logits (..., K): an exponential average of their mean."""
    return centre * momentum + teacher.detach().reshape(-1, teacher.shape[-1]).mean(0) * (1 - momentum)
