"""How badly the views foretell each other: the noise-prediction error that a pose is judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cameras import relative_pose
from .view_prior import ViewCondition, ViewPrior

MAX_BATCH = 64  # rows of one call of the network, whatever the number of views and hypotheses
HEIGHT = math.radians(20)  # off the estimated polar angle costs as much as one pixel's noise not foretold
NOISIEST, CLEAREST = 850, 250  # timesteps between which an error says something about the pose


@dataclass(frozen=True)
class Draw:
    """One level of noise, and one noise for all views.

    Attributes:
        t: timestep.
        noise: (n, c, h, w).
    """

    t: int
    noise: Tensor


@dataclass(frozen=True)
class PairError:
    """Squared error of the noise that is predicted in one known view, given another and their relative pose.

    A view is foretold best from the pose that it was taken from; both directions count. Source: Cheng et al.
    2023, *ID-Pose*. Where the prior estimates polar angles, the squared distance from its estimate, in units of
    `HEIGHT`, is added: otherwise a pair that is foretold badly from everywhere can drive it anywhere.

    Attributes:
        prior: of the views.
        condition: of the n known views.
        latents: (n, c, h, w) of the same.
    """

    prior: ViewPrior
    condition: ViewCondition
    latents: Tensor

    def draws(self, count: int, generator: torch.Generator) -> list[Draw]:
        """`count` draws from the noisiest level to the clearest."""
        drawn = []
        for i in range(count):
            t = round(NOISIEST + (CLEAREST - NOISIEST) * (i + 0.5) / count)
            noise = torch.randn(self.latents.shape, generator=generator, dtype=self.latents.dtype)
            drawn.append(Draw(t, noise.to(self.latents.device)))
        return drawn

    def __call__(self, first: Tensor, second: Tensor, cameras: Tensor, draws: Sequence[Draw]) -> Tensor:
        """Errors (D, R) of pairs of views.

        Args:
            first, second: (R,) indices of views.
            cameras: (R, 2, 3) of both, as `ViewCondition.cameras` gives them.
            draws: D levels of noise.
        """
        known, wanted, both = _directions(first, second, cameras)
        parts = torch.arange(len(known)).split(MAX_BATCH)
        with torch.no_grad():
            errors = [self._rows(known[part], wanted[part], both[part], draws) for part in parts]
        return torch.cat(errors, dim=1).unflatten(1, (2, -1)).sum(1)

    def gradient(self, first: Tensor, second: Tensor, cameras: Tensor, draw: Draw) -> Tensor:
        """Gradients (R, 2, 3) of the errors in the cameras."""
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
        posed = self.prior.posed(self.condition[known].at(here[:, 0]), relative_pose(there, here))
        unlikely = torch.zeros_like(here[:, 0])
        if self.condition.polar is not None:
            unlikely = ((here[:, 0] - self.condition.polar[known]) / HEIGHT).square()
        errors = []
        for draw in draws:
            abar = float(self.prior.alphas_cumprod[draw.t])
            noise = draw.noise[wanted]
            z_t = abar**0.5 * self.latents[wanted] + (1 - abar) ** 0.5 * noise
            predicted = self.prior.predict_noise(z_t, draw.t, posed)
            errors.append((predicted - noise).square().flatten(1).sum(1) + unlikely)
        return torch.stack(errors)


def _directions(first: Tensor, second: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Known and wanted views of pairs in both directions, (2 R,) each, and their cameras (2 R, 2, 3)."""
    both = torch.cat([cameras, cameras.flip(1)])
    return torch.cat([first, second]), torch.cat([second, first]), both
