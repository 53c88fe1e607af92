"""GibbsDDRM (Murata et al., ICML 2023): DDRM on the image, Gibbs updates of an unknown blur kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

import latentdem_ext as ext

from ..operators.blur import Blur
from ..operators.kernel_langevin import KernelEnergy
from ..priors.base import LatentPrior
from .ddrm import DDRMStep
from .draws import cumulative_alpha, unit_noise
from .measurement import Measurement
from .schedules import timesteps
from .state import TraceStep

_PIXELS = 256 * 256  # of the images that `sparsity` is meant for


@dataclass(frozen=True)
class GibbsDDRM:
    """Draws image and kernel in turn: a partially collapsed Gibbs sampler.

    At every timestep x_{t-1} is drawn by a step of DDRM (Eq. 9, see `DDRMStep`). Then, `updates` times, the
    kernel is drawn from its posterior given the clean prediction from x_{t-1}, by Langevin steps (see
    `KernelEnergy`), and x_{t-1} again with the new kernel. The constants are those of the authors' release for
    motion blur on FFHQ, except `step_size`: theirs is 1e-11, whatever the image and its noise.

    Where the latents of the prior are pixels (`PixelPrior`, on images that need no padding), the step is that
    of the paper. With an autoencoder the noise of x_{t-1} cannot be shaped in the spectral space of the blur:
    its mean is encoded, and noise with the variance of the schedule is added to the latent, as in `Proximal`.
    Measured coefficients then get somewhat more noise than in DDRM.

    Pixels that were not measured are filled with their prediction and noise before every update, as the release
    does beyond the frame.

    Attributes:
        step: constants of the step of DDRM.
        updates: Gibbs updates of the kernel per timestep.
        langevin: Langevin steps per update.
        step_size: of a Langevin step, in units of the inverse of the greatest curvature.
        sparsity: gamma of the Laplace prior of the kernel, for an image of 256 x 256; it weighs against a sum
            over pixels, so it is scaled with their number.
        kernel_from: timestep from which on the kernel is updated.
    """

    step: DDRMStep = field(default_factory=DDRMStep)
    updates: int = 3
    langevin: int = 500
    step_size: float = 1.0
    sparsity: float = 1000.0
    kernel_from: int = 700

    @torch.no_grad()
    def __call__(
        self,
        prior: LatentPrior,
        measurement: Measurement,
        kernel: Tensor,
        *,
        generator: torch.Generator,
        steps: int = 100,
        on_step: Callable[[TraceStep], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Runs from noise down to the clean image.

        Args:
            prior: prior of images.
            measurement: B images on the grid of a circular blur.
            kernel: (B, 1, K, K) to start from.
            generator: the only source of randomness, on the device of the measurement.
            steps: number of timesteps.
            on_step: called after every step, with tensors on the device of the measurement.

        Returns:
            The image (B, 3, H, W), not clamped, and the kernel (B, 1, K, K).
        """
        run = _Run(self, prior, measurement, Blur(kernel.shape[-1], mask=measurement.mask), generator)
        shape = torch.Size((len(measurement), *prior.latent_shape(*measurement.size)))
        z = unit_noise(shape, generator, measurement.y)
        for t, t_next in timesteps(steps):
            noise, x0 = run.predict(z, t)
            after = run.draw(z, noise, x0, kernel, t, t_next)
            if t <= self.kernel_from and t_next >= 0:
                for _ in range(self.updates):
                    kernel = run.update(kernel, run.predict(after, t_next)[1])
                    after = run.draw(z, noise, x0, kernel, t, t_next)
            z = after
            if on_step is not None:
                residual = run.operator.residual(x0, kernel, measurement.y)
                on_step(TraceStep("GibbsDDRM", t, residual, kernel))
        return prior.decode(z, *measurement.size), kernel


@dataclass(frozen=True)
class _Run:
    """The draws of one run."""

    method: GibbsDDRM
    prior: LatentPrior
    measurement: Measurement
    operator: Blur
    generator: torch.Generator

    def predict(self, z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The noise in latents and the clean image."""
        noise = self.prior.predict_noise(z, t)
        a = cumulative_alpha(self.prior, t, len(z), z).view(-1, 1, 1, 1)
        return noise, self.prior.decode((z - (1 - a).sqrt() * noise) / a.sqrt(), *self.measurement.size)

    def draw(self, z: Tensor, noise: Tensor, x0: Tensor, kernel: Tensor, t: int, t_next: int) -> Tensor:
        """The latents at `t_next`, given those at `t` with their noise and clean image."""
        now, after = (cumulative_alpha(self.prior, s, len(z), z) for s in (t, t_next))
        level = ((1 - after) / after).sqrt()
        step = self.method.step(x0, self._filled(x0, kernel), kernel, self.measurement.sigma, level)
        fresh = unit_noise(z.shape, self.generator, z)
        if z.shape == x0.shape:  # the latents are pixels
            return after.sqrt().view(-1, 1, 1, 1) * step.draw(noise, fresh)
        # The encoder was not trained on values beyond black and white.
        z0 = self.prior.encode(step.clean.clamp(-1, 1))
        return ext.renoise(z, z0, now, after, fresh, self.method.step.eta_d**2)

    def update(self, kernel: Tensor, x0: Tensor) -> Tensor:
        """A kernel drawn from its posterior given the clean image."""
        method, sparsity = self.method, self.method.sparsity * x0[0, 0].numel() / _PIXELS
        variance = self.measurement.sigma.square()
        energy = KernelEnergy(x0, self._filled(x0, kernel), variance, kernel.shape[-1], sparsity)
        return energy.sample(kernel, method.langevin, method.step_size, self.generator)

    def _filled(self, x0: Tensor, kernel: Tensor) -> Tensor:
        """The measurement, with a draw of what was not measured."""
        mask, y = self.measurement.mask, self.measurement.y
        if mask is None:
            return y
        noise = self.measurement.sigma.view(-1, 1, 1, 1) * unit_noise(y.shape, self.generator, y)
        return torch.where(mask > 0, y, self.operator(x0, kernel) + noise)
