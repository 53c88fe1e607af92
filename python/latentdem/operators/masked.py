"""Least squares for a blur of which only some pixels were measured, in the image and in the kernel.

The normal equations are solved in the Fourier domain, preconditioned with the closed form that holds without
a mask. Iterates stay there, so that an iteration costs one inverse and one forward transform. That is no more
than filling the unmeasured pixels with k * x and solving the closed form again, which is the same iteration
with steps of length 1 and without conjugate directions, and needs many times as many iterations.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import latentdem_ext as ext

from .least_squares import conjugate_gradients


def masked_proximal(
    x0: Tensor, kernel: Tensor, y: Tensor, mask: Tensor, rho: Tensor, iterations: int
) -> Tensor:
    """argmin_x ||mask (y - k * x)||^2 + rho ||x - x0||^2 by preconditioned conjugate gradients.

    Args:
        x0: (B, C, H, W) image to start from.
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
    adjoint, weight = otf.conj(), rho.view(-1, 1, 1, 1)
    inverse = 1 / (otf.real.square() + otf.imag.square() + weight)

    def normal(spectrum: Tensor) -> Tensor:
        blurred = torch.fft.irfft2(otf * spectrum, s=shape)
        return adjoint * torch.fft.rfft2(mask * blurred) + weight * spectrum

    blurred = torch.fft.irfft2(otf * torch.fft.rfft2(x0), s=shape)
    residual = adjoint * torch.fft.rfft2(mask * (y - blurred))
    change = conjugate_gradients(normal, residual, iterations, partial(_inner, width=shape[1]), inverse)
    return x0 + torch.fft.irfft2(change, s=shape)


class MaskedKernelUpdate:
    """Steps towards argmin_k ||mask (y - k * x)||^2 + a ||k - k_0||^2 from k_0, cropped to K x K.

    `hqs_kernel_update` solves this in closed form where all pixels were measured. The sum over samples in
    Eq. 11 runs over those in x.

    Args:
        x: (B, S, C, H, W), S posterior samples.
        y: (B, C, H, W); its unmeasured pixels do not count.
        mask: (1 or B, 1, H, W), 1 where y was measured, else 0.
        weight: (B,) the weight a above, on the scale of `latentdem_ext.hqs_prepare`.
        iterations: of conjugate gradients per update.
    """

    def __init__(self, x: Tensor, y: Tensor, mask: Tensor, weight: Tensor, iterations: int = 4) -> None:
        self._shape = (x.shape[-2], x.shape[-1])
        self._x = torch.fft.rfft2(x.flatten(1, 2))
        self._y, self._mask = y.repeat(1, x.shape[1], 1, 1), mask
        self._weight = weight.view(-1, 1, 1, 1)
        power = (self._x.real.square() + self._x.imag.square()).sum(1, keepdim=True)
        self._inverse = 1 / (power + self._weight)
        self._iterations = iterations

    def __call__(self, kernel: Tensor) -> Tensor:
        """The next kernel (B, 1, K, K) after `kernel`, non-negative with sum 1."""
        height, width = self._shape
        residual = self._correlate(self._y - self._blur(ext.kernel_to_otf(kernel, self._shape)))
        inner = partial(_inner, width=width)
        spectrum = conjugate_gradients(self._normal, residual, self._iterations, inner, self._inverse)
        change = torch.fft.irfft2(spectrum, s=self._shape)
        support = torch.arange(kernel.shape[-1], device=kernel.device) - kernel.shape[-1] // 2
        return ext.project_kernel(kernel + change[..., (support % height)[:, None], support % width])

    def _normal(self, otf: Tensor) -> Tensor:
        return self._correlate(self._blur(otf)) + self._weight * otf

    def _blur(self, otf: Tensor) -> Tensor:
        return torch.fft.irfft2(otf * self._x, s=self._shape)

    def _correlate(self, image: Tensor) -> Tensor:
        return (self._x.conj() * torch.fft.rfft2(self._mask * image)).sum(1, keepdim=True)


def _inner(a: Tensor, b: Tensor, width: int) -> Tensor:
    """(B, 1, 1, 1) inner product of two real images, times H W, from their half spectra."""
    product = a.real * b.real + a.imag * b.imag
    total = 2 * product.sum((1, 2, 3), keepdim=True)
    # The first column, and the last one for an even width, occur once in the whole spectrum.
    once = product[..., :1] if width % 2 else product[..., [0, -1]]
    return total - once.sum((1, 2, 3), keepdim=True)
