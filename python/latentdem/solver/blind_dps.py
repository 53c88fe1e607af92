"""BlindDPS (Chung et al., CVPR 2023): parallel diffusions of the image and of an unknown blur kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import latentdem_ext as ext

from ..operators.blur import Blur
from ..priors.base import LatentPrior
from ..priors.kernel_diffusion import kernel_of
from .draws import cumulative_alpha, unit_noise
from .measurement import Measurement
from .schedules import timesteps
from .state import TraceStep

_PIXELS = 256 * 256  # of the images that `scale` is meant for


@dataclass(frozen=True)
class BlindDPS:
    """Two reverse diffusions whose clean predictions explain the measurement together (Fig. 2).

    At every timestep the image x0 and the kernel k0 are predicted from x_t and k_t (Tweedie's formula). Both
    diffusions make a step of DDPM, minus alpha_t times the gradient in x_t and k_t of

        ||y - k0 * x0|| + lambda R(k0).

    This is diffusion posterior sampling (Chung et al., ICLR 2023, Algorithm 1) in both at once. As in the
    release of the authors, alpha_t rises with sqrt(abar_t), where the paper has a constant, and predicted
    pixels are clipped to [-1, 1]. Here alpha_t is `scale` or `kernel_scale` times sqrt(abar_t) for 1000 steps,
    and 1000 / steps times that for fewer.

    k0 is the prediction without its negative values, divided by its sum: a point of the simplex. There the l1
    norm is constant, and the gradient of the l0 norm is zero, so the regularizers of the release would do
    nothing. R is therefore a smooth count of the values above that of a uniform kernel,
    R(k) = sum_m k_m / (k_m + 1 / K^2).

    With an autoencoder, x_t are latents and x0 is decoded; the gradient goes through the decoder.

    Attributes:
        scale: factor of the image's gradient steps for an image of 256 x 256 (release: 1). The norm has a
            gradient of about the same length for images of any size, so the factor is scaled with the root of
            their number of pixels.
        kernel_scale: factor of the kernel's gradient steps (release: 1).
        sparsity: lambda.
    """

    scale: float = 2.0
    kernel_scale: float = 1.0
    sparsity: float = 0.01

    @torch.no_grad()
    def __call__(
        self,
        prior: LatentPrior,
        kernel_prior: LatentPrior,
        measurement: Measurement,
        kernel_size: int,
        *,
        generator: torch.Generator,
        steps: int = 1000,
        on_step: Callable[[TraceStep], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Runs both from noise down to the clean image and kernel.

        Args:
            prior: prior of images.
            kernel_prior: prior of kernels as pictures of one channel, see `KernelDiffusion`.
            measurement: B images on the grid of a circular blur.
            kernel_size: K.
            generator: the only source of randomness, on the device of the measurement.
            steps: number of timesteps.
            on_step: called after every step, with tensors on the device of the measurement.

        Returns:
            The image (B, 3, H, W), not clamped, and the kernel (B, 1, K, K).
        """
        batch, y = len(measurement), measurement.y
        image = _Diffusion(prior, *measurement.size)
        blur = _Diffusion(kernel_prior, kernel_size, kernel_size)
        operator = Blur(kernel_size, mask=measurement.mask)
        coarsening = 1000 / steps
        scale = self.scale * coarsening * (y[0, 0].numel() / _PIXELS) ** 0.5
        kernel_scale = self.kernel_scale * coarsening
        z, u = (unit_noise(each.shape(batch), generator, y) for each in (image, blur))
        for t, t_next in timesteps(steps):
            with torch.enable_grad():
                z, u = z.requires_grad_(), u.requires_grad_()
                of_image, of_kernel = image.predict(z, t), blur.predict(u, t)
                kernel = kernel_of(of_kernel.clean)
                loss = self._loss(operator, of_image.clean, kernel, y)
                gradients = torch.autograd.grad(loss.sum(), (z, u))
            z = image.step(z.detach(), of_image, t, t_next, scale * gradients[0], generator)
            u = blur.step(u.detach(), of_kernel, t, t_next, kernel_scale * gradients[1], generator)
            if on_step is not None:
                residual = operator.residual(of_image.clean.detach(), kernel.detach(), y)
                on_step(TraceStep("BlindDPS", t, residual, kernel.detach()))
        return prior.decode(z, *measurement.size), kernel_of(blur.decoded(u))

    def _loss(self, operator: Blur, x: Tensor, kernel: Tensor, y: Tensor) -> Tensor:
        """(B,) the norm of what is not explained, over the measured pixels, and the weighted sparsity."""
        gap = operator.fill(y, x, kernel) - operator(x, kernel)
        # The root has no derivative at 0.
        norm = gap.square().sum((1, 2, 3)).clamp_min(1e-12).sqrt()
        return norm + self.sparsity * sparsity(kernel)


def sparsity(kernel: Tensor) -> Tensor:
    """R (B,) of kernels (B, 1, K, K) on the simplex: about the number of their values above 1 / K^2."""
    return (kernel / (kernel + 1 / kernel[0].numel())).sum((1, 2, 3))


class _Predicted(NamedTuple):
    """Predicted noise in the latents, which goes with the clean ones, and the clean picture."""

    noise: Tensor
    clean: Tensor


@dataclass(frozen=True)
class _Diffusion:
    """The reverse diffusion of pictures of one size."""

    prior: LatentPrior
    height: int
    width: int

    def shape(self, batch: int) -> torch.Size:
        return torch.Size((batch, *self.prior.latent_shape(self.height, self.width)))

    def decoded(self, z: Tensor) -> Tensor:
        return self.prior.decode(z, self.height, self.width)

    def predict(self, z: Tensor, t: int) -> _Predicted:
        """The prediction; latents that are pixels are clipped to [-1, 1], as in the release."""
        noise = self.prior.predict_noise(z, t)
        a = cumulative_alpha(self.prior, t, len(z), z).view(-1, 1, 1, 1)
        clean = (z - (1 - a).sqrt() * noise) / a.sqrt()
        if z.shape[-2] >= self.height:
            clean = clean.clamp(-1, 1)
            noise = (z - a.sqrt() * clean) / (1 - a).sqrt()
        return _Predicted(noise, self.decoded(clean))

    def step(
        self,
        z: Tensor,
        predicted: _Predicted,
        t: int,
        t_next: int,
        gradient: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """z_{t-1}: an ancestral step, minus sqrt(abar_t) times the gradient."""
        now, after = (cumulative_alpha(self.prior, s, len(z), z) for s in (t, t_next))
        noise = unit_noise(z.shape, generator, z)
        return ext.dps_step(
            z,
            predicted.noise.detach(),
            now,
            after,
            eta=1.0,
            noise=noise,
            gradient=gradient,
            step_size=now.sqrt(),
        )[0]
