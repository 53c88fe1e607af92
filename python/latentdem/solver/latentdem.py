"""LatentDEM: expectation-maximisation with a latent diffusion prior (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import UserError
from ..operators.base import Operator
from ..priors.base import LatentPrior
from .draws import alpha_table, cumulative_alpha, unit_noise
from .e_step import EStep, Proximal
from .graph import steps_of
from .schedules import EVERY_STEP, Skip, timesteps
from .state import State, TraceStep
from .step import Given, Step


class LatentDEM:
    """One reverse diffusion that restores a batch of images and moves their operator's parameters.

    Args:
        prior: latent diffusion prior.
        operator: forward operator; its `m_step` moves the parameters.
        e_step: `Proximal()` (default) or `Posterior()`.
        skip: which steps are full EM steps; the others are plain DDIM moves of the latent.
        num_samples: posterior samples S per image; the M-step sums over them (Eq. 11).
        m_step_from: no M-step above this timestep, where the clean prediction carries no information yet; B
            numbers give one per entry of the batch.
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
        m_step_from: int | Sequence[int] = 1000,
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
            on_step: called with the `State` after every full step; its tensors are on the device of `y`, where
                reading one waits for all steps before.
            resume: the state of an interrupted run to continue from, with the generator in its state of then.

        Returns:
            The clean prediction D(z0) (B, 3, H, W), mean over the samples, and the parameters (B, ...).

        Raises:
            UserError: `latents` of another shape, or another number of `m_step_from`.
        """
        batch, (height, width) = len(y), self.operator.image_size(y)
        samples = self.num_samples
        sigma = noise_sigma if isinstance(noise_sigma, Tensor) else y.new_full((batch,), noise_sigma)
        warm_start = None
        if resume is None:
            z = self._start(y, image, start, generator, latents)
        else:
            z, parameters, warm_start = resume.latents, resume.parameters, resume.warm_start
        schedule = timesteps(steps, start)
        alphas = alpha_table(self.prior, [t for t, _ in schedule] + [schedule[-1][1]], len(z), y)
        moving = self._moving([t for t, _ in schedule], batch, y.device)
        step = Step(self.prior, self.operator, self.e_step, y, sigma.square(), samples, (height, width))
        take = steps_of(step)
        t_before = start + self.skip.every
        for number, (t, _) in enumerate(schedule):
            full = self.skip.full(t, t_before)
            t_before = t
            if resume is not None and t >= resume.step.t:
                continue
            noise = unit_noise(z.shape, generator, z, self.hypotheses * samples)
            abar, abar_next = alphas[number], alphas[number + 1]
            if not full:
                z = take.plain(Given(z, parameters, abar, abar_next, noise), t)
                continue
            anyone, who = moving[number]
            done = take.full(Given(z, parameters, abar, abar_next, noise, who, warm_start), t, anyone)
            z, parameters, warm_start = done.z, done.parameters, done.warm_start
            if on_step is not None:
                entry = TraceStep(stage, t, done.residual, parameters)
                state = State(z, parameters, done.z0, entry, warm_start)
                on_step(state)
                z, parameters = state.latents, state.parameters
        self.operator.warm_start = None  # the caller's next proximal step is of other images
        self.samples = self.prior.decode(z, height, width).unflatten(0, (batch, samples))
        return self.samples.mean(1), parameters

    def _moving(
        self, times: Sequence[int], batch: int, device: torch.device
    ) -> list[tuple[bool, Tensor | None]]:
        """For each timestep, whether there is an M-step, and for whom (B,); None for all, or for nobody."""
        given = self.m_step_from
        least = [given] * batch if isinstance(given, int) else [int(value) for value in given]
        if len(least) != batch:
            raise UserError(f"There are {len(least)} numbers `m_step_from` for {batch} entries; give one each.")
        who = [[value >= t for value in least] for t in times]
        some = [any(row) and not all(row) for row in who]
        table = torch.tensor(who).to(device) if any(some) else None
        return [(any(row), table[i] if table is not None and some[i] else None) for i, row in enumerate(who)]

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
