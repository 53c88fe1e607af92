"""Langevin steps on the kernel of a known image: the update of GibbsDDRM (Murata et al., ICML 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import latentdem_ext as ext


class KernelEnergy:
    """U(k) = ||y - k * x||^2 / (2 v) + gamma ||k||_1 of kernels (B, 1, K, K), circular convolution.

    exp(-U) is the likelihood of white noise with variance v, times a Laplace prior. The gradient needs only the
    lags that a K x K kernel reaches: with the autocorrelation r[l] = sum_n x[n] x[n + l] and the correlation
    c[m] = sum_n x[n - (m - K // 2)] y[n], both summed over the channels, it is (r * k - c) / v + gamma sign(k).
    r is kept on a padded grid of 2 K points a side, so the cost of a gradient does not depend on the image.

    Args:
        x: (B, C, H, W) image; y: (B, C, H, W) measurement.
        variance: (B,) v.
        kernel_size: K.
        sparsity: gamma.

    Attributes:
        curvature: (B,) upper bound of the eigenvalues of the second derivative of U.
    """

    def __init__(self, x: Tensor, y: Tensor, variance: Tensor, kernel_size: int, sparsity: float) -> None:
        self.kernel_size, self.sparsity = kernel_size, sparsity
        scale = variance.view(-1, 1, 1, 1)
        spectrum, shape = torch.fft.rfft2(x), x.shape[-2:]
        correlation = torch.fft.irfft2((spectrum.conj() * torch.fft.rfft2(y)).sum(1, keepdim=True), s=shape)
        centred = correlation.roll((kernel_size // 2, kernel_size // 2), (-2, -1))
        self._correlation = centred[..., :kernel_size, :kernel_size] / scale
        power = spectrum.abs().square().sum(1, keepdim=True)
        autocorrelation = torch.fft.irfft2(power, s=shape) / scale
        lags = torch.arange(1 - kernel_size, kernel_size, device=x.device)
        side = 2 * kernel_size
        window = x.new_zeros(len(x), 1, side, side)
        window[..., (lags % side)[:, None], lags % side] = autocorrelation[
            ..., (lags % shape[0])[:, None], lags % shape[1]
        ]
        self._filter = torch.fft.rfft2(window).real  # r is even, so its transform is real
        self.curvature = self._filter.abs().amax((1, 2, 3))

    def gradient(self, kernel: Tensor) -> Tensor:
        """dU/dk (B, 1, K, K)."""
        size, side = self.kernel_size, 2 * self.kernel_size
        padded = torch.fft.rfft2(F.pad(kernel, (0, side - size, 0, side - size)))
        response = torch.fft.irfft2(padded * self._filter, s=(side, side))[..., :size, :size]
        return response - self._correlation + self.sparsity * kernel.sign()

    def sample(self, kernel: Tensor, steps: int, step_size: float, generator: torch.Generator) -> Tensor:
        """The kernel after unadjusted Langevin steps k <- k - xi / 2 dU/dk + sqrt(xi) noise, on the simplex.

        Args:
            kernel: (B, 1, K, K) to start from.
            steps: number of steps.
            step_size: xi / 2 in units of 1 / `curvature`; the steps diverge from 2 on.
            generator: source of the noise, which all kernels of the batch share.

        Returns:
            (B, 1, K, K), non-negative with sum 1.
        """
        xi = (2 * step_size / self.curvature).view(-1, 1, 1, 1)
        spread = xi.sqrt()
        for _ in range(steps):
            noise = torch.randn(kernel.shape[1:], generator=generator, device=kernel.device, dtype=kernel.dtype)
            kernel = kernel - xi / 2 * self.gradient(kernel) + spread * noise
        return ext.project_kernel(kernel)
