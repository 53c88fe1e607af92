"""The proximal step of a blur of which only some pixels were measured."""

from __future__ import annotations

import torch
from torch import Tensor

import latentdem_ext as ext


def masked_proximal(
    x0: Tensor, kernel: Tensor, y: Tensor, mask: Tensor, rho: Tensor, iterations: int
) -> Tensor:
    """argmin_x ||mask (y - k * x)||^2 + rho ||x - x0||^2 by preconditioned conjugate gradients.

    The preconditioner is the closed form without the mask, 1 / (|F k|^2 + rho), which leaves eigenvalues
    between rho / (1 + rho) and 1. Iterates are kept in the Fourier domain, so that an iteration costs one
    inverse and one forward transform, no more than filling the unmeasured pixels with k * x and solving the
    closed form again; that, which is the same iteration without conjugate directions, needs many times as many.

    Args:
        x0: (B, C, H, W) the iteration starts from.
        kernel: (B, 1, K, K).
        y: (B, C, H, W); its unmeasured pixels do not count.
        mask: (1 or B, 1, H, W), 1 where y was measured, else 0.
        rho: (B,), positive.
        iterations: of conjugate gradients.

    Returns:
        (B, C, H, W).
    """
    shape = (x0.shape[-2], x0.shape[-1])
    otf = ext.kernel_to_otf(kernel, shape)
    adjoint = otf.conj()
    weight = rho.view(-1, 1, 1, 1)
    inverse = 1 / (otf.real.square() + otf.imag.square() + weight)
    start = torch.fft.rfft2(x0)
    residual = adjoint * torch.fft.rfft2(mask * (y - torch.fft.irfft2(otf * start, s=shape)))
    found = torch.zeros_like(residual)
    direction = inverse * residual
    power = _inner(residual, direction, shape[1])
    for _ in range(iterations):
        blurred = mask * torch.fft.irfft2(otf * direction, s=shape)
        image = adjoint * torch.fft.rfft2(blurred) + weight * direction
        # A sample that is solved has no direction left.
        step = power / _inner(direction, image, shape[1]).clamp_min(torch.finfo(power.dtype).tiny)
        found = found + step * direction
        residual = residual - step * image
        conditioned = inverse * residual
        power, before = _inner(residual, conditioned, shape[1]), power
        direction = conditioned + power / before.clamp_min(torch.finfo(power.dtype).tiny) * direction
    return x0 + torch.fft.irfft2(found, s=shape)


def _inner(a: Tensor, b: Tensor, width: int) -> Tensor:
    """(B, 1, 1, 1) real inner product of two real images given by their half spectra, times H W."""
    product = a.real * b.real + a.imag * b.imag
    total = 2 * product.sum((1, 2, 3), keepdim=True)
    # The first column, and the last of an even width, occur once in the whole spectrum.
    total = total - product[..., 0].sum((1, 2), keepdim=True).unsqueeze(-1)
    if width % 2 == 0:
        total = total - product[..., -1].sum((1, 2), keepdim=True).unsqueeze(-1)
    return total
