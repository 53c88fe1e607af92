"""The weight of the measurement in a proximal step: the ratio of two variances, fixed, annealed or estimated.

The step is argmin_x ||y - A x||^2 / v + ||x - x0||^2 / r^2, so what it needs is rho = v / r^2: v is the
variance of y - A x, r^2 that of the error of the prediction x0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from ..operators.base import Operator
from .schedules import Annealing


@dataclass(frozen=True)
class Prediction:
    """A clean prediction and the measurement it is compared with.

    Attributes:
        operator: forward operator A.
        x0: (N, C, H, W) predicted image.
        parameters: (N, ...) of the operator.
        y: (N, C, h, w) measurement.
        variance: (N,) sigma^2 of the measurement noise.
        r2: (N,) variance of the error of x0 according to the diffusion's schedule.
        t: timestep, a number or a tensor () on the device.
    """

    operator: Operator
    x0: Tensor
    parameters: Tensor
    y: Tensor
    variance: Tensor
    r2: Tensor
    t: int | Tensor = 0


class DataWeight(Protocol):
    """rho (N,) of a proximal step."""

    def __call__(self, prediction: Prediction) -> Tensor: ...


@dataclass(frozen=True)
class Annealed:
    """v = zeta_t sigma^2, the annealing of the paper (arXiv Sec. 4.2), fixed in advance."""

    annealing: Annealing = Annealing()

    def __call__(self, prediction: Prediction) -> Tensor:
        return self.annealing(prediction.t) * prediction.variance / prediction.r2


@dataclass(frozen=True)
class ModellingError:
    """v = sigma^2 + c nu^2, nu^2 being the excess of the mean square of y - A x0 over sigma^2.

    The paper derives its annealing from such a variance (arXiv App. A) and fixes it in advance; measured at
    every step, it cannot be too small for a wrong operator.

    Attributes:
        factor: c; a tensor (N,) gives one per image.
    """

    factor: float | Tensor = 2.0

    def __call__(self, prediction: Prediction) -> Tensor:
        variance = prediction.variance
        measured = prediction.operator.mean_square(prediction.x0, prediction.parameters, prediction.y)
        return (variance + self.factor * (measured - variance).clamp_min(0)) / prediction.r2


_CLASSES = 64  # of coefficients with similar gain, over the six decades below its greatest value, 1
_DECADES = 6
_CANDIDATES = torch.logspace(-4.5, 0, 73)  # for r^2; the image range is 2
_EXCESS = torch.logspace(0, 4, 33)  # for v, in units of the variance of the sensor's noise, its least value


@cache
def _grids(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both on a device, where they are copied once: that means to wait for a GPU."""
    with torch.inference_mode(False):
        return _CANDIDATES.to(device, dtype), _EXCESS.to(device, dtype)


@dataclass(frozen=True)
class MaximumLikelihood:
    """The v, at least sigma^2, and the r^2 under which y - A x0 is most likely, for correct parameters.

    See `most_likely`. The r^2 of the schedule is not used.
    """

    def __call__(self, prediction: Prediction) -> Tensor:
        p = prediction
        variance, error, _ = most_likely(p.operator, p.x0, p.parameters, p.y, p.variance)
        return variance / error


def most_likely(
    operator: Operator, x0: Tensor, parameters: Tensor, y: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Variances v of y - A x and r^2 of the error of x0 that make y - A x0 most likely, and that likelihood.

    If the error of x0 is white with variance r^2, the coefficients of y - A x0 in the basis that makes A A^T
    diagonal are independent with variance v + r^2 g, g being the eigenvalues (`Operator.spectrum`; of a blur
    |F k|^2). v is the sensor's noise and everything that no image explains: rounding, JPEG, an operator that is
    not quite right. The coefficients that the operator suppresses distinguish v from r^2. Both are found on a
    logarithmic grid, after the coefficients are sorted into classes of similar g.

    Args:
        x0: (N, C, H, W); parameters: (N, ...); y: (N, C, h, w).
        variance: (N,) of the sensor's noise, the least value of v.

    Returns:
        v and r^2 (N,), and the logarithm of the likelihood per coefficient (N,), up to a constant that is the
        same for all parameters of an operator.
    """
    gain, power = operator.spectrum(x0, parameters, y)
    position = (gain.clamp_min(1e-30).log10() / _DECADES + 1) * _CLASSES
    index = position.long().clamp(0, _CLASSES - 1)
    count, gains, powers = (
        gain.new_zeros(len(gain), _CLASSES).scatter_add(1, index, values)
        for values in (torch.ones_like(gain), gain, power)
    )
    errors, excess = _grids(gain.device, gain.dtype)
    noise = variance.view(-1, 1) * excess  # (N, V)
    signal = errors[:, None] * (gains / count.clamp_min(1))[:, None]  # (N, R, classes)
    spectrum = noise[:, :, None, None] + signal[:, None]
    cost = (powers[:, None, None] / spectrum + count[:, None, None] * spectrum.log()).sum(-1)
    least, best = cost.flatten(1).min(1)
    chosen = noise.gather(1, (best // len(errors))[:, None])[:, 0]
    return chosen, errors[best % len(errors)], -0.5 * least / count.sum(1)


@dataclass(frozen=True)
class MostCautious:
    """The greatest rho of several: for estimated parameters, which may be wrong.

    Maximum likelihood accounts for how smooth a picture is but assumes a correct operator; the modelling error
    notices a wrong operator but not how smooth the picture is. The measurement weighs as much as both allow.
    """

    parts: tuple[DataWeight, ...] = (ModellingError(1.0), MaximumLikelihood())

    def __call__(self, prediction: Prediction) -> Tensor:
        return torch.stack([part(prediction) for part in self.parts]).amax(0)
