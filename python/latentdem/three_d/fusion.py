"""The E-step's weights: how much each view counts in the fused noise prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..schedules import Annealing

FUSION = Annealing(10.0, 0.0, 600)  # nu_t^2 / s_t^2, as the annealing of Algorithm 1


def fuse(noise: Tensor, variance: Tensor, error: float) -> Tensor:
    """The E-step: what all views say together (K, c, h, w), pixel by pixel the mean by their precision.

    The variance s^2 of what a view says is that of the pixel here: a view that sees a part of the object weighs
    more there than one that must guess it. Where all are equally sure, the weights are those of
    `fusion_weights`.

    Args:
        noise: (K, n, c, h, w) predictions of n known views for K wanted ones.
        variance: (K, n, 1, h, w) of these, up to a factor that they share.
        error: as in `fusion_weights`.
    """
    weights = fusion_weights(noise.shape[1], error).to(noise).view(-1, 1, 1, 1) / variance
    return (weights / weights.sum(1, keepdim=True) * noise).sum(1)


def fusion_weights(views: int, error: float) -> Tensor:
    """Weights (views,), float32, non-negative, sum 1.

    With s_t^2 the variance of what a view says and nu_t^2 the modelling error of the poses that are still
    unknown, the views but the first weigh s_t^2 / (n s_t^2 + nu_t^2) and the first, whose pose is known, the
    rest: nearly everything early, as much as the others at the end. For two views this is LatentDEM,
    Algorithm 2, with gamma_t = s_t^2 / (2 s_t^2 + nu_t^2).

    Args:
        views: n.
        error: nu_t^2 / s_t^2, not negative.
    """
    weights = torch.full((views,), 1 / (views + error))
    weights[0] = (1 + error) / (views + error)
    return weights
