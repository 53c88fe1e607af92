"""How badly the views foretell each other: the noise-prediction error that a pose is judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import relative_pose
from ..priors.base import ViewCondition, ViewPrior

MAX_BATCH = 64  # rows of one call of the network, whatever the number of views and hypotheses
HEIGHT = math.radians(20)  # off the estimated polar angle costs as much as one pixel's noise not foretold
ASIDE = 0.015  # a principal point off its estimate, in units of the world, that costs as much
AWAY = 0.1  # and the distance of a crop off `RADIUS`
NOISIEST, CLEAREST = 850, 250  # timesteps between which an error says something about the pose


@dataclass(frozen=True)
class Draw:
    """One level of noise, and one noise for all views.

    Attributes:
        t: timestep.
        noise: (n, c, h, w); None for the expectation over all noises.
    """

    t: int
    noise: Tensor | None


@dataclass(frozen=True)
class PairError:
    """Squared error of the noise that is predicted in one known view, given another and their relative pose.

    A view is foretold best from the pose that it was taken from; both directions count. Source: Cheng et al.
    2023, *ID-Pose*. Where the prior foretells a mean and a variance without noise, the error is that of the
    noise which follows from these, and its expectation over all noises: no network is called for it. Where the
    prior estimates polar angles, the squared distance from its estimate, in units of `HEIGHT`, is added:
    otherwise a pair that is foretold badly from everywhere can drive it anywhere. So are, for crops, those of
    principal points and distances, in units of `ASIDE` and `AWAY`.

    Attributes:
        prior: of the views.
        condition: of the n known views.
        latents: (n, c, h, w) of the same.
    """

    prior: ViewPrior
    condition: ViewCondition
    latents: Tensor

    def draws(self, count: int, generator: torch.Generator, rough: bool = False) -> list[Draw]:
        """`count` draws from the noisiest level to the clearest.

        Args:
            rough: whether the error may be that of what the prior foretells without noise, if it does so.
        """
        drawn = []
        for i in range(count):
            t = round(NOISIEST + (CLEAREST - NOISIEST) * (i + 0.5) / count)
            if rough and self.prior.temperature < 1:
                drawn.append(Draw(t, None))
                continue
            noise = torch.randn(self.latents.shape, generator=generator, dtype=self.latents.dtype)
            drawn.append(Draw(t, noise.to(self.latents.device)))
        return drawn

    def __call__(self, first: Tensor, second: Tensor, cameras: Tensor, draws: Sequence[Draw]) -> Tensor:
        """Errors (D, R) of pairs of views.

        Args:
            first, second: (R,) indices of views.
            cameras: (R, 2, 3) or (R, 2, 5) of both, as `ViewCondition.cameras` gives them.
            draws: D levels of noise.
        """
        known, wanted, both = _directions(first, second, cameras)
        parts = torch.arange(len(known)).split(MAX_BATCH)
        with torch.no_grad():
            errors = [self._rows(known[part], wanted[part], both[part], draws) for part in parts]
        return torch.cat(errors, dim=1).unflatten(1, (2, -1)).sum(1)

    def gradient(self, first: Tensor, second: Tensor, cameras: Tensor, draw: Draw) -> Tensor:
        """Gradients of the errors in the cameras, shaped as these."""
        known, wanted, both = _directions(first, second, cameras)
        gradients: list[Tensor] = []
        for part in torch.arange(len(known)).split(MAX_BATCH):
            with torch.enable_grad():
                moved = both[part].detach().requires_grad_()
                error = self._rows(known[part], wanted[part], moved, [draw]).sum()
                gradients += torch.autograd.grad(error, moved)
        there, back = torch.cat(gradients).chunk(2)
        return there + back.flip(1)

    def _rows(self, known: Tensor, wanted: Tensor, cameras: Tensor, draws: Sequence[Draw]) -> Tensor:
        here, there = cameras.unbind(1)
        posed = self.prior.posed(self.condition[known].at(here), relative_pose(there, here))
        unlikely = torch.zeros_like(here[:, 0])
        if self.condition.polar is not None:
            unlikely = ((here[:, 0] - self.condition.polar[known]) / HEIGHT).square()
        if self.condition.principal is not None:
            unlikely = unlikely + ((here[:, 3:] - self.condition.principal[known]) / ASIDE).square().sum(1)
            unlikely = unlikely + (here[:, 2] / AWAY).square()
        errors = []
        for draw in draws:
            abar, z = float(self.prior.alphas_cumprod[draw.t]), self.latents[wanted]
            if draw.noise is None:
                assert posed.mean is not None
                missed = expected_error(z, posed.mean, posed.variance, abar)
            else:
                noise = draw.noise[wanted]
                z_t = abar**0.5 * z + (1 - abar) ** 0.5 * noise
                missed = (self.prior.predict_noise(z_t, draw.t, posed) - noise).square()
            errors.append(missed.flatten(1).sum(1) + unlikely)
        return torch.stack(errors)


def expected_error(z: Tensor, mean: Tensor, variance: Tensor, abar: float) -> Tensor:
    """Squared error (B, c, h, w) of the noise predicted for z0 ~ N(mean, variance), expected over the noise.

    With v the variance, the best estimate of z0 out of z_t = sqrt(abar) z + sqrt(1 - abar) noise misses z by
    ((1 - abar) (mean - z) + v sqrt(abar (1 - abar)) noise) / (v abar + 1 - abar), and that of the noise misses
    the noise by sqrt(abar / (1 - abar)) times as much. Source: the posterior of a Gaussian, Bishop 2006,
    Eq. 2.116.

    Args:
        z: (B, c, h, w) what is to be foretold.
        mean, variance: (B, c, h, w) or broadcastable.
        abar: cumulative alpha of the timestep, below 1.
    """
    total = variance * abar + 1 - abar
    return abar * ((1 - abar) * (mean - z).square() + abar * variance.square()) / total.square()


def _directions(first: Tensor, second: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Known and wanted views of pairs in both directions, (2 R,) each, and their cameras (2 R, 2, 3)."""
    both = torch.cat([cameras, cameras.flip(1)])
    return torch.cat([first, second]), torch.cat([second, first]), both
