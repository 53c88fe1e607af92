"""Least squares for an image that is nowhere darker than black, nor brighter than white if that explains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BLACK, WHITE = -1.0, 1.0
_WEIGHT = 10.0  # of the splitting, in units of rho; 3 converges more slowly
_ITERATIONS = 20  # of the splitting that tells whether there are lights
_VARIANCE = 0.05  # of the error of a blurred photograph as an estimate of the sharp one
_LIGHTS = 1.5  # ratio of mean squares; on parts of photographs up to 1.2 without lights, 1.4 to 54 with them


@dataclass(frozen=True)
class Limits:
    """The range of the light that a photograph shows.

    Noise and whatever the prior does not know let least squares overshoot beside black and white, and clipping
    the result afterwards gives an image that no longer explains the photograph. Under the limits the image is
    the best one within them. Light is never negative, so that black is a limit always. White is none where
    lamps or their reflections are brighter than the sensor's range, although blur may have dimmed them.

    Attributes:
        white: (B,) the upper limit of each photograph, in units of [-1, 1]; infinity where there are lights.
    """

    white: Tensor

    @classmethod
    def of(
        cls,
        proximal: Callable[[Tensor, Tensor], Tensor],
        mean_square: Callable[[Tensor], Tensor],
        y: Tensor,
        variance: Tensor,
    ) -> Limits:
        """Looks whether images within black and white explain photographs up to noise, or as well as any image.

        Args:
            proximal: argmin_x ||y - A x||^2 + rho ||x - x0||^2 as a function of x0 and rho.
            mean_square: (B,) mean square of y - A x as a function of x.
            y: (B, C, H, W) the photographs, which stand for x0 here.
            variance: (B,) of their noise.
        """
        rho = variance / _VARIANCE
        limits = cls(torch.full_like(variance, WHITE))
        limited = mean_square(limits.clamped(limits.proximal(proximal, y, rho, _ITERATIONS)))
        lights = limited > _LIGHTS * mean_square(proximal(y, rho)).maximum(variance)
        return cls(torch.where(lights, torch.inf, limits.white))

    def clamped(self, x: Tensor) -> Tensor:
        """The nearest image within the limits; `x` (B S, C, H, W)."""
        white = self.white.repeat_interleave(len(x) // len(self.white)).view(-1, 1, 1, 1)
        return x.clamp_min(BLACK).minimum(white)

    def proximal(
        self, proximal: Callable[[Tensor, Tensor], Tensor], x0: Tensor, rho: Tensor, iterations: int
    ) -> Tensor:
        """argmin_x ||y - A x||^2 + rho ||x - x0||^2 within the limits, which are met up to a small rest.

        By the alternating direction method of multipliers (Boyd et al., 2011, section 5.2).

        Args:
            proximal: the minimum without limits as a function of x0 (B S, C, H, W) and rho (B S,).
            x0: the image that the result is near to.
            rho: its weight.
            iterations: of the splitting, each with another `proximal`.
        """
        x = proximal(x0, rho)
        multiplier = torch.zeros_like(x)
        for _ in range(iterations):
            within = self.clamped(x + multiplier)
            multiplier = multiplier + x - within
            target = (x0 + _WEIGHT * (within - multiplier)) / (1 + _WEIGHT)
            x = proximal(target, rho * (1 + _WEIGHT))
        return x
