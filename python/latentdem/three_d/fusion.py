"""Weights of the E-step: how much each known view counts in the fused noise prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..solver.schedules import Annealing

FUSION = Annealing(10.0, 0.0, 600)  # nu_t^2 / s_t^2, as the annealing of Algorithm 1

CORRELATION = 0.65  # between the errors of two views in the same target view, see docs/research/three_d.md


def fuse(noise: Tensor, variance: Tensor, error: float) -> Tensor:
    """The E-step: the best linear combination (K, c, h, w) of the predictions of all views in each pixel.

    The variance s^2 of a prediction depends on the pixel: a view that shows a part of the object has a larger
    weight there than one that must guess it. Errors of different views are correlated. With `CORRELATION` r
    between any two errors, the least variance has the weights

        w_i = (1 / s_i) (1 / s_i - r / (1 + (n - 1) r) sum_j 1 / s_j),

    (Gauss-Markov theorem), over the n views of least variance for which none of them is negative, and 0 for the
    others. They are multiplied by those of `fusion_weights`, and do not change these where all variances are
    equal.

    Args:
        noise: (K, n, c, h, w) predictions of n known views for K target views.
        variance: (K, n, 1, h, w) variances of the predictions, up to a common factor.
        error: see `fusion_weights`.
    """
    views, inverse = noise.shape[1], variance.rsqrt()  # 1 / s_i
    ordered = inverse.sort(1, descending=True).values
    count = torch.arange(views, device=noise.device).view(-1, 1, 1, 1)
    shared = CORRELATION / (1 + count * CORRELATION) * ordered.cumsum(1)
    last = (ordered > shared).sum(1, keepdim=True) - 1
    weights = (inverse * (inverse - shared.gather(1, last))).clamp_min(0)
    weights = weights * fusion_weights(views, error, noise.device).to(noise).view(-1, 1, 1, 1)
    return (weights / weights.sum(1, keepdim=True) * noise).sum(1)


def fusion_weights(views: int, error: float, device: torch.device | None = None) -> Tensor:
    """Weights (views,), float32, non-negative, with sum 1.

    With s_t^2 the variance of a prediction and nu_t^2 the modelling error of estimated poses, each view but the
    first has the weight s_t^2 / (n s_t^2 + nu_t^2); the first, whose pose is known, has the rest. That is
    nearly everything at early steps, and as much as each of the others at the end. For two views this is
    LatentDEM, Algorithm 2, with gamma_t = s_t^2 / (2 s_t^2 + nu_t^2).

    Args:
        views: number of views n.
        error: nu_t^2 / s_t^2, not negative.
        device: device of the weights.
    """
    shares = ((1, 1 + error), (views - 1, 1.0))
    return torch.cat([torch.full((n,), share / (views + error), device=device) for n, share in shares])
