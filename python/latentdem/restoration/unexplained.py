"""How much of the edges of a photograph an estimated kernel leaves unexplained."""

from __future__ import annotations

import torch
from torch import Tensor

from ..solver.measurement import Measurement
from ..solver.passes import Candidates

_LEAST_CONTRAST = 0.1  # of the edges, in units of what is measured with noise


def unexplained_share(measurement: Measurement, candidates: Candidates) -> Tensor:
    """The error of a trial beyond the noise, in units of the photograph's contrast (B,).

    sqrt((r^2 - sigma^2)+ + (v - sigma^2)+) / g, where r is the residual of the trial's image, v the
    variance that no image explains (`most_likely`) and g the root mean square of the differences between
    neighbouring pixels, without the noise in them. With a wrong kernel, the image that the prior makes of the
    measurement either leaves a model error or needs values beyond black and white, which the residual shows.

    Args:
        measurement: photographs on their own pixels, not on a padded grid.
        candidates: the trial of one kernel for each of them, see `trial`.
    """
    return excess_share(measurement, candidates.residual, candidates.variance)


def excess_share(measurement: Measurement, residual: Tensor, variance: Tensor) -> Tensor:
    """`unexplained_share` (B,) for r and v (B,) of any restoration."""
    noise = measurement.sigma.square()
    mask = torch.ones_like(measurement.y[:1, :1]) if measurement.mask is None else measurement.mask
    energy = torch.zeros_like(noise)
    for axis in (-2, -1):
        length = mask.shape[axis] - 1
        both = mask.narrow(axis, 0, length) * mask.narrow(axis, 1, length)
        squares = measurement.y.diff(dim=axis).square().mean(1, keepdim=True) * both
        energy = energy + squares.sum((1, 2, 3)) / both.sum().clamp_min(1)
    contrast = (energy - 4 * noise).maximum(_LEAST_CONTRAST**2 * energy)  # two differences of two pixels
    excess = (residual.square() - noise).clamp_min(0) + (variance - noise).clamp_min(0)
    return (excess / contrast).sqrt()
