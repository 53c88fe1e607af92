"""The E-step's weights: how much each view counts in the fused noise prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..solver.schedules import Annealing

FUSION = Annealing(10.0, 0.0, 600)  # nu_t^2 / s_t^2, as the annealing of Algorithm 1

CORRELATION = 0.65  # of the errors that two views make in a wanted one, see docs/research/three_d.md


def fuse(noise: Tensor, variance: Tensor, error: float) -> Tensor:
    """The E-step: what all views say together (K, c, h, w), pixel by pixel their best linear combination.

    The variance s^2 of what a view says is that of the pixel here: a view that sees a part of the object weighs
    more there than one that must guess it. What is hard to foretell from one view is so from the others, too:
    with `CORRELATION` r of any two errors, the least variance is that of the weights

        w_i = (1 / s_i) (1 / s_i - r / (1 + (n - 1) r) sum_j 1 / s_j),

    (Gauss and Markov's theorem) over the n surest views for which none of them is negative, and 0 for the
    others. They are multiplied by those of `fusion_weights`, which they leave as they are where all views are
    equally sure.

    Args:
        noise: (K, n, c, h, w) predictions of n known views for K wanted ones.
        variance: (K, n, 1, h, w) of these, up to a factor that they share.
        error: as in `fusion_weights`.
    """
    views, sure = noise.shape[1], variance.rsqrt()
    surest = sure.sort(1, descending=True).values
    count = torch.arange(views, device=noise.device).view(-1, 1, 1, 1)
    shared = CORRELATION / (1 + count * CORRELATION) * surest.cumsum(1)
    last = (surest > shared).sum(1, keepdim=True) - 1
    weights = (sure * (sure - shared.gather(1, last))).clamp_min(0)
    weights = weights * fusion_weights(views, error, noise.device).to(noise).view(-1, 1, 1, 1)
    return (weights / weights.sum(1, keepdim=True) * noise).sum(1)


def fusion_weights(views: int, error: float, device: torch.device | None = None) -> Tensor:
    """Weights (views,), float32, non-negative, sum 1.

    With s_t^2 the variance of what a view says and nu_t^2 the modelling error of the poses that are still
    unknown, the views but the first weigh s_t^2 / (n s_t^2 + nu_t^2) and the first, whose pose is known, the
    rest: nearly everything early, as much as the others at the end. For two views this is LatentDEM,
    Algorithm 2, with gamma_t = s_t^2 / (2 s_t^2 + nu_t^2).

    Args:
        views: n.
        error: nu_t^2 / s_t^2, not negative.
        device: of the weights.
    """
    shares = ((1, 1 + error), (views - 1, 1.0))
    return torch.cat([torch.full((n,), share / (views + error), device=device) for n, share in shares])
