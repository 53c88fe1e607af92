"""Least squares for an image that is nowhere darker than black, nor brighter than white if that explains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

BLACK, WHITE = -1.0, 1.0
_WEIGHT = 10.0  # of the splitting, in units of rho; 3 converges more slowly
_TOLERANCE = 5e-4  # root mean square beyond the limits, and of a change; a step of 8 bits is 7.8e-3
_CHECKED = (0, 3, 6, 12, 20)  # iterations of the splitting after which it is seen whether there are lights
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
        tolerance: root mean square of what is left beyond the limits, and of the last change, that is enough.
    """

    white: Tensor
    tolerance: float = _TOLERANCE

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
        lights = torch.ones_like(variance, dtype=torch.bool)
        for n, x in enumerate(islice(limits._iterates(proximal, y, rho), _CHECKED[-1] + 1)):
            if n == 0:
                allowed = _LIGHTS * mean_square(x).maximum(variance)
            if n in _CHECKED:
                lights &= mean_square(limits.clamped(x)) > allowed
                if _known_to_end(lights):
                    break
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
            iterations: of the splitting at most, each with another `proximal`.
        """
        images = islice(self._iterates(proximal, x0, rho), iterations + 1)
        x = next(images)
        moving = _size(x - self.clamped(x)) > self.tolerance
        while not _known_to_end(moving) and (latest := next(images, None)) is not None:
            change = torch.where(moving, latest - x, 0)
            x = x + change
            moving &= _size(change).maximum(_size(x - self.clamped(x))) > self.tolerance
        return x

    def _iterates(
        self, proximal: Callable[[Tensor, Tensor], Tensor], x0: Tensor, rho: Tensor
    ) -> Iterator[Tensor]:
        """The images of the splitting; the first one is the minimum without limits."""
        x = proximal(x0, rho)
        multiplier = torch.zeros_like(x)
        while True:
            yield x
            within = self.clamped(x + multiplier)
            multiplier = multiplier + x - within
            target = (x0 + _WEIGHT * (within - multiplier)) / (1 + _WEIGHT)
            x = proximal(target, rho * (1 + _WEIGHT))


def _known_to_end(needed: Tensor) -> bool:
    """Whether no image needs more iterations; a GPU goes on without effect, as asking it would mean to wait."""
    return needed.device.type == "cpu" and not bool(needed.any())


def _size(image: Tensor) -> Tensor:
    """(B, 1, 1, 1) root mean square of images (B, C, H, W)."""
    return image.square().mean((1, 2, 3), keepdim=True).sqrt()
