"""LatentDEM: expectation-maximisation with a latent diffusion prior (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import latentdem_ext as ext

from ..errors import UserError
from ..operators.base import Operator
from ..priors.base import LatentPrior
from .draws import cumulative_alpha, unit_noise
from .e_step import EStep, Move, Proximal
from .schedules import EVERY_STEP, Skip, timesteps
from .state import State, TraceStep


class LatentDEM:
    """One reverse diffusion that restores a batch of images and moves their operator's parameters.

    Args:
        prior: latent diffusion prior.
        operator: forward operator; its `m_step` moves the parameters.
        e_step: `Proximal()` (default) or `Posterior()`.
        skip: which steps are full EM steps; the others are plain DDIM moves of the latent.
        num_samples: posterior samples S per image; the M-step sums over them (Eq. 11).
        m_step_from: no M-step above this timestep, where the clean prediction carries no information yet; a
            tensor (B,) gives one per entry of the batch.
        hypotheses: number of consecutive entries of the batch that belong to one image. The noise is drawn once
            for them and shared by all images, so that a batch of images gives the results of single runs.

    Attributes:
        samples: (B, S, 3, H, W) the posterior samples of the last run; None before the first.
    """

    def __init__(
        self,
        prior: LatentPrior,
        operator: Operator,
        e_step: EStep | None = None,
        *,
        skip: Skip | None = None,
        num_samples: int = 1,
        m_step_from: int | Tensor = 1000,
        hypotheses: int = 1,
    ) -> None:
        self.prior, self.operator = prior, operator
        self.e_step: EStep = e_step or Proximal()
        self.skip = skip or EVERY_STEP
        self.num_samples, self.m_step_from, self.hypotheses = num_samples, m_step_from, hypotheses
        self.samples: Tensor | None = None

    @torch.no_grad()
    def __call__(
        self,
        y: Tensor,
        parameters: Tensor,
        noise_sigma: Tensor | float,
        *,
        generator: torch.Generator,
        steps: int = 50,
        start: int = 999,
        image: Tensor | None = None,
        latents: Tensor | None = None,
        stage: str = "",
        on_step: Callable[[State], None] | None = None,
        resume: State | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Runs from `start` down to the clean image.

        Args:
            y: (B, C, h, w) measurement, of an image for most operators.
            parameters: (B, ...) parameters of the operator to start from, such as kernels (B, 1, K, K).
            noise_sigma: (B,) standard deviation of the measurement noise, in the units of `y`; or one for all.
            generator: the only source of randomness, on the device of `y`.
            steps: steps per full range of 1000 timesteps.
            start: first timestep; below 999 an `image` (B, 3, H, W) to re-noise from is needed.
            latents: (B S, c, h, w) noise to start from; None draws it.
            on_step: called with the `State` after every full step.
            resume: the state of an interrupted run to continue from, with the generator in its state of then.

        Returns:
            The clean prediction D(z0) (B, 3, H, W), mean over the samples, and the parameters (B, ...).

        Raises:
            UserError: `latents` of another shape.
        """
        batch, (height, width) = len(y), self.operator.image_size(y)
        samples = self.num_samples
        y_all = y.repeat_interleave(samples, 0)
        sigma = noise_sigma if isinstance(noise_sigma, Tensor) else y.new_full((batch,), noise_sigma)
        variance = sigma.square()
        self.operator.warm_start = None if resume is None else resume.warm_start
        if resume is None:
            z = self._start(y, image, start, generator, latents)
        else:
            z, parameters = resume.latents, resume.parameters
        t_before = start + self.skip.every
        for t, t_next in timesteps(steps, start):
            if resume is not None and t >= resume.step.t:
                t_before = t
                continue
            abar, abar_next = (cumulative_alpha(self.prior, s, len(z), y) for s in (t, t_next))
            noise = unit_noise(z.shape, generator, z, self.hypotheses * samples)
            if not self.skip.full(t, t_before):
                z = ext.dps_step(z, self.prior.predict_noise(z, t), abar, abar_next)[0]
                t_before = t
                continue
            with torch.set_grad_enabled(self.e_step.differentiate):
                z = z.detach().requires_grad_(self.e_step.differentiate)
                eps = self.prior.predict_noise(z, t)
                a = abar.view(-1, 1, 1, 1)
                z0 = (z - (1 - a).sqrt() * eps) / a.sqrt()
                x0 = self.prior.decode(z0, height, width)
            x = x0.detach()
            moving = torch.as_tensor(self.m_step_from, device=y.device).expand(batch) >= t
            if moving.any():
                moved = self.operator.m_step(x.unflatten(0, (batch, samples)), y, parameters, variance)
                moving = moving.view(-1, *[1] * (parameters.ndim - 1))
                parameters = torch.where(moving, moved, parameters)
            repeated = parameters.repeat_interleave(samples, 0)
            move = Move(
                t, abar, abar_next, z, eps, z0, x0, y_all, repeated, variance.repeat_interleave(samples), noise
            )
            z = self.e_step(move, self.prior, self.operator)
            t_before = t
            if on_step is not None:
                residual = self.operator.residual(x, repeated, y_all).unflatten(0, (batch, samples)).mean(1)
                step = TraceStep(stage, t, residual.cpu(), parameters.cpu())
                state = State(z, parameters, z0.detach(), step, self.operator.warm_start)
                on_step(state)
                z, parameters = state.latents, state.parameters
        self.operator.warm_start = None  # the caller's next proximal step is of other images
        self.samples = self.prior.decode(z, height, width).unflatten(0, (batch, samples))
        return self.samples.mean(1), parameters

    def _start(
        self,
        y: Tensor,
        image: Tensor | None,
        start: int,
        generator: torch.Generator,
        latents: Tensor | None,
    ) -> Tensor:
        shape = torch.Size((len(y) * self.num_samples, *self.prior.latent_shape(*self.operator.image_size(y))))
        if latents is not None and latents.shape != shape:
            raise UserError(
                f"The latents to start from have the shape {tuple(shape)} here, not {tuple(latents.shape)}."
            )
        own = self.hypotheses * self.num_samples
        noise = unit_noise(shape, generator, y, own) if latents is None else latents.to(y)
        if image is None:
            return noise
        a = cumulative_alpha(self.prior, start, len(noise), y).view(-1, 1, 1, 1)
        z0 = self.prior.encode(image).repeat_interleave(self.num_samples, 0)
        return a.sqrt() * z0 + (1 - a).sqrt() * noise
