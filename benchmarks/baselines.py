"""How the same results are usually computed, in our own words: what the operations are measured against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from latentdem_ext import reference


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
