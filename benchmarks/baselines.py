"""How the same results are usually computed, in our own words: what the operations are measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from latentdem_ext import reference

GUIDANCE = 7.5


def public_m_step(x: Tensor, y: Tensor, kernel: Tensor, weight: Tensor, iterations: int) -> Tensor:
    """The M-step as public code has it (FastDiffusionEM, LatentDEM; Eq. 17-19), without a denoiser.

    Complex transforms of image, measurement and padded kernel in every iteration, the closed form for each
    channel alone, the mean over the channels, clipped and normalised. x, y (B, C, H, W), kernel (B, 1, K, K),
    weight (B,).
    """
    (height, width), size = y.shape[-2:], kernel.shape[-1]
    origin = size // 2
    a = weight.view(-1, 1, 1, 1)
    for _ in range(iterations):
        padded = F.pad(kernel, (0, width - size, 0, height - size)).roll((-origin, -origin), (-2, -1))
        x_hat, y_hat, k_hat = torch.fft.fft2(x), torch.fft.fft2(y), torch.fft.fft2(padded)
        solution = (x_hat.conj() * y_hat + a * k_hat) / (x_hat.abs().square() + a)
        kernels = torch.fft.ifft2(solution).real.roll((origin, origin), (-2, -1))[..., :size, :size]
        kernel = kernels.mean(dim=1, keepdim=True).clamp(min=0)
        kernel = kernel / kernel.sum(dim=(-2, -1), keepdim=True)
    return kernel


def autograd_fidelity(x: Tensor, kernel: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared norm, gradient by back-propagation, and gluing target, as DPS and PSLD compute them.

    One blur that is differentiated, the norm, its backward pass, and the adjoint blur of the residual.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        residual = y - reference.blur(x, kernel)
        norm2 = residual.square().sum(dim=(1, 2, 3))
        (gradient,) = torch.autograd.grad(norm2.sum(), x)
    return norm2.detach(), gradient, x.detach() + reference.blur_adjoint(residual.detach(), kernel)


@dataclass(frozen=True)
class PublicSteps:
    """One diffusion step in the order of operations of public programs, all on the same latent networks.

    The release and PSLD are programs for such networks; DPS and FastDiffusionEM are for pixels, and are moved
    here to latents by a decoder within what is differentiated. The networks run under autocast, as in the first
    two. The scales of gradients and moves are constants, on which no time depends.

    Attributes:
        vae, unet: of diffusers, in float32.
        text: (1, 77, c), the embedding of an empty prompt.
        denoise: kernels (B, 1, K, K) and a noise level -> kernels.
        y: (B, 3, H, W), the measurement.
        half: what autocast computes in.
    """

    vae: Any
    unet: Any
    text: Tensor
    denoise: Callable[[Tensor, float], Tensor]
    y: Tensor
    half: torch.dtype

    def release(self, z: Tensor, kernel: Tensor) -> Tensor:
        """Of LatentDEM's authors, 1000 steps: PSLD's, and an M-step of 20 iterations, centred on the CPU."""
        with torch.autocast(z.device.type, self.half), torch.enable_grad():
            z = z.detach().requires_grad_()
            eps, z0 = self._guided(z)
            x0 = self.vae.decode(z0).sample
            residual = self.y - _blurred(x0, kernel)
            glued = self.vae.encode(x0 + residual).latent_dist.mode()
            (gradient,) = torch.autograd.grad(residual.norm() + 0.1 * (glued - z0).norm(), z)
        self._moved_kernel(x0.detach(), kernel, 20)
        return _moved(z0, eps, gradient)

    def psld(self, z: Tensor, kernel: Tensor) -> Tensor:
        """Of PSLD with a known kernel, 1000 steps: an idle guidance, two measurements and two adjoint ones."""
        with torch.autocast(z.device.type, self.half), torch.enable_grad():
            z = z.detach().requires_grad_()
            eps, z0 = self._guided(z)
            x0 = self.vae.decode(z0).sample
            fidelity = (_blurred(x0, kernel) - self.y).norm()
            back = _blurred(self.y, kernel, adjoint=True) - _blurred(_blurred(x0, kernel), kernel, adjoint=True)
            glued = self.vae.encode(x0 + back).latent_dist.mode()
            (gradient,) = torch.autograd.grad(fidelity + 0.1 * (glued - z0).norm(), z)
        return _moved(z0, eps, gradient)

    def dps(self, z: Tensor, kernel: Tensor) -> Tensor:
        """Of DPS with a known kernel, 1000 steps: the gradient of the residual's norm through all networks."""
        with torch.autocast(z.device.type, self.half), torch.enable_grad():
            z = z.detach().requires_grad_()
            eps, z0 = self._predicted(z)
            residual = self.y - _blurred(self.vae.decode(z0).sample, kernel)
            (gradient,) = torch.autograd.grad(residual.norm(), z)
        return _moved(z0, eps, gradient)

    def fast_em(self, z: Tensor, kernel: Tensor) -> Tensor:
        """Of FastDiffusionEM with the guidance of PiGDM, 100 steps: an M-step of 10 iterations before it."""
        with torch.autocast(z.device.type, self.half), torch.enable_grad():
            z = z.detach().requires_grad_()
            eps, z0 = self._predicted(z)
            x0 = self.vae.decode(z0).sample
            kernel = self._moved_kernel(x0.detach(), kernel, 10)
            target = _least_squares(x0.detach().float(), kernel, self.y)
            (gradient,) = torch.autograd.grad((target * x0).sum(), z)
        return _moved(z0, eps, gradient)

    def _predicted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        eps = self.unet(z, 500, self.text.repeat_interleave(len(z), 0)).sample
        return eps, (z - 0.7 * eps) / 0.7

    def _guided(self, z: Tensor) -> tuple[Tensor, Tensor]:
        texts = torch.cat([self.text, self.text]).repeat_interleave(len(z), 0)
        negative, positive = self.unet(torch.cat([z, z]), 500, texts).sample.chunk(2)
        eps = negative + GUIDANCE * (positive - negative)
        return eps, (z - 0.7 * eps) / 0.7

    @torch.no_grad()
    def _moved_kernel(self, x: Tensor, kernel: Tensor, iterations: int) -> Tensor:
        weight = torch.full((len(x),), 5e6 * 0.02**2, device=x.device)
        for _ in range(iterations):
            kernel = self.denoise(public_m_step(x.float(), self.y, kernel, weight, 1), 0.05)
        centred = [ndimage.shift(k, (0.3, -0.3)) for k in kernel[:, 0].cpu().numpy()]
        return torch.stack([torch.as_tensor(k) for k in centred])[:, None].to(x.device)


def _moved(z0: Tensor, eps: Tensor, gradient: Tensor) -> Tensor:
    return (0.7 * z0 + 0.7 * eps - 0.5 * gradient).detach()


def _transfer(kernel: Tensor, height: int, width: int) -> Tensor:
    """Complex transform (B, 1, H, W) of the whole padded kernel."""
    size = kernel.shape[-1]
    padded = F.pad(kernel, (0, width - size, 0, height - size))
    return torch.fft.fft2(padded.roll((-(size // 2),) * 2, (-2, -1)))


def _blurred(x: Tensor, kernel: Tensor, adjoint: bool = False) -> Tensor:
    transfer = _transfer(kernel, *x.shape[-2:])
    return torch.fft.ifft2(torch.fft.fft2(x.float()) * (transfer.conj() if adjoint else transfer)).real


def _least_squares(x: Tensor, kernel: Tensor, y: Tensor) -> Tensor:
    """A^T (A A^T + 0.1)^-1 (y - A x)."""
    transfer = _transfer(kernel, *x.shape[-2:])
    residual = torch.fft.fft2(y) - transfer * torch.fft.fft2(x)
    return torch.fft.ifft2(transfer.conj() * residual / (transfer.abs().square() + 0.1)).real
