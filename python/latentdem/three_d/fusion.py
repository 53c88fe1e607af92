"""The E-step's weights: how much each view counts in the fused noise prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from ..schedules import Annealing

FUSION = Annealing(10.0, 0.0, 600)  # nu_t^2 / s_t^2, as the annealing of Algorithm 1


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
