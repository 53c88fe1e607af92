"""One step of the reverse diffusion: tensors in, tensors out, and nothing that waits for a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

import latentdem_ext as ext

from ..operators.base import Operator
from ..priors.base import LatentPrior
from .e_step import EStep, Move


class Given(NamedTuple):
    """What a step is given, batch and samples flattened to N = B * S.

    Attributes:
        z: (N, c, h, w) noisy latents.
        parameters: (B, ...) of the operator.
        abar, abar_next: (N,) cumulative alphas before and after the step.
        noise: (N, c, h, w) fresh unit noise.
        moving: (B,) bool, whose parameters the M-step may move; None for all.
        warm_start: that of the operator, see `Operator`.
    """

    z: Tensor
    parameters: Tensor
    abar: Tensor
    abar_next: Tensor
    noise: Tensor
    moving: Tensor | None = None
    warm_start: Tensor | None = None


class Stepped(NamedTuple):
    """What a full step results in.

    Attributes:
        z: (N, c, h, w) latents of the next step.
        parameters: (B, ...) of the operator after the M-step.
        z0: (N, c, h, w) the clean latents that were predicted.
        residual: (B,) root mean square of y - A x0.
        warm_start: that of the operator.
    """

    z: Tensor
    parameters: Tensor
    z0: Tensor
    residual: Tensor
    warm_start: Tensor | None


@dataclass(frozen=True)
class Step:
    """The steps of one run.

    Attributes:
        y: (B, C, h, w) measurement; variance: (B,) of its noise.
        samples: S.
        size: (H, W) of the image.
    """

    prior: LatentPrior
    operator: Operator
    e_step: EStep
    y: Tensor
    variance: Tensor
    samples: int
    size: tuple[int, int]

    @cached_property
    def _repeated(self) -> tuple[Tensor, Tensor]:
        """The measurement and its variance for every sample."""
        return self.y.repeat_interleave(self.samples, 0), self.variance.repeat_interleave(self.samples)

    def plain(self, given: Given, t: int | Tensor) -> Tensor:
        """A DDIM move of the latents, (N, c, h, w), at timestep `t`."""
        noise = self._noise(given.z, t)
        return ext.dps_step(given.z, noise, given.abar, given.abar_next)[0]

    def full(self, given: Given, t: int | Tensor, with_m_step: bool) -> Stepped:
        """An EM step at timestep `t`, a number or a tensor () on the device."""
        batch, samples, y = len(self.y), self.samples, self.y
        z, parameters, abar = given.z, given.parameters, given.abar
        self.operator.warm_start = given.warm_start
        with torch.set_grad_enabled(self.e_step.differentiate):
            z = z.detach().requires_grad_(self.e_step.differentiate)
            eps = self._noise(z, t)
            a = abar.view(-1, 1, 1, 1)
            z0 = (z - (1 - a).sqrt() * eps) / a.sqrt()
            x0 = self.prior.decode(z0, *self.size)
        x = x0.detach()
        if with_m_step:
            moved = self.operator.m_step(x.unflatten(0, (batch, samples)), y, parameters, self.variance)
            if given.moving is not None:
                moving = given.moving.view(-1, *[1] * (parameters.ndim - 1))
                moved = torch.where(moving, moved, parameters)
            parameters = moved
        repeated = parameters.repeat_interleave(samples, 0)
        y_all, variance = self._repeated
        move = Move(t, abar, given.abar_next, z, eps, z0, x0, y_all, repeated, variance, given.noise)
        after = self.e_step(move, self.prior, self.operator)
        residual = self.operator.residual(x, repeated, y_all).unflatten(0, (batch, samples)).mean(1)
        return Stepped(after, parameters, z0.detach(), residual, self.operator.warm_start)

    def _noise(self, z: Tensor, t: int | Tensor) -> Tensor:
        return self.prior.predict_noise(z, t)  # type: ignore[arg-type]  # a tensor where that is `capturable`
