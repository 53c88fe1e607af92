"""Least squares for a blur of which only some pixels were measured, in the kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext.reference.frame_preconditioner import of_rows
from latentdem_ext.reference.masked import MAX_ITERATIONS, conjugate_gradients

KERNEL_TOLERANCE = 1e-4  # root mean square error of k * x from that of the kernel

_DENSE = 33  # K up to which the kernel's preconditioner is a K^2 x K^2 matrix


class MaskedKernelUpdate:
    """Steps to argmin_k ||mask (y - k * x)||^2 + a ||k - k_0||^2 from k_0, k being K x K.

    `hqs_kernel_update` computes the same in closed form where everything was measured and k may fill the grid.
    The sum over samples of Eq. 11 is over x. On the small support of a kernel the mask hardly differs from a
    window on x, which would make the matrix the autocorrelation of the windowed x. That one, factored once, is
    the preconditioner. Every step starts from the solution of the step before.

    Args:
        x: (B, S, C, H, W), S posterior samples.
        y: (B, C, H, W); its unmeasured pixels do not count.
        mask: (1 or B, 1, H, W), 1 where y was measured, else 0; weights from 0 to 1 are possible.
        weight: (B,) the a above, on the scale of `latentdem_ext.hqs_prepare`.
        tolerance: see `KERNEL_TOLERANCE`.
        iterations: maximum per step.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        mask: Tensor,
        weight: Tensor,
        tolerance: float = KERNEL_TOLERANCE,
        iterations: int = MAX_ITERATIONS,
    ) -> None:
        self._shape = (x.shape[-2], x.shape[-1])
        samples = x.flatten(1, 2)
        self._x, self._y, self._mask = torch.fft.rfft2(samples), y.repeat(1, x.shape[1], 1, 1), mask
        self._weight = weight.view(-1, 1, 1, 1)
        windowed = torch.fft.rfft2(mask.sqrt() * samples)
        self._power = (windowed.real.square() + windowed.imag.square()).sum(1, keepdim=True)
        self._allowed = (tolerance**2 * samples[0].numel()) * torch.ones_like(self._weight)
        self._iterations = iterations
        self._condition: Callable[[Tensor, Tensor], Tensor] | None = None
        self._solution: Tensor | None = None

    def __call__(self, kernel: Tensor) -> Tensor:
        """The kernel (B, 1, K, K) that follows `kernel`, non-negative with sum 1."""
        if self._condition is None:
            small = kernel.shape[-1] <= _DENSE
            self._condition = self._factored(kernel.shape[-1]) if small else self._filtered
        rows = torch.arange(len(kernel), device=kernel.device)
        start = kernel if self._solution is None else self._solution
        residual = self._correlate(self._y - self._blur(start, rows), rows, kernel.shape[-1])
        residual = residual + self._weight * (kernel - start)
        self._solution = start + conjugate_gradients(
            self._normal, residual, self._condition, self._allowed, self._iterations
        )
        return ext.project_kernel(self._solution)

    def _normal(self, kernel: Tensor, rows: Tensor) -> Tensor:
        data = self._correlate(self._blur(kernel, rows), rows, kernel.shape[-1])
        return data + of_rows(self._weight, rows) * kernel

    def _blur(self, kernel: Tensor, rows: Tensor) -> Tensor:
        return torch.fft.irfft2(ext.kernel_to_otf(kernel, self._shape) * of_rows(self._x, rows), s=self._shape)

    def _correlate(self, image: Tensor, rows: Tensor, size: int) -> Tensor:
        spectrum = of_rows(self._x, rows).conj() * torch.fft.rfft2(of_rows(self._mask, rows) * image)
        return _cut(torch.fft.irfft2(spectrum.sum(1, keepdim=True), s=self._shape), size)

    def _factored(self, size: int) -> Callable[[Tensor, Tensor], Tensor]:
        """The inverse of the autocorrelation of the windowed x, a K^2 x K^2 matrix."""
        lags = torch.fft.irfft2(self._power.double(), s=self._shape)[:, 0]
        line = torch.arange(size, device=lags.device)
        across, down = line.repeat(size), line.repeat_interleave(size)
        matrix = lags[:, (down[:, None] - down) % self._shape[0], (across[:, None] - across) % self._shape[1]]
        matrix.diagonal(dim1=1, dim2=2).add_(self._weight.view(-1, 1))
        factor = torch.linalg.cholesky(matrix).to(self._weight)

        def solve(residual: Tensor, rows: Tensor) -> Tensor:
            solved = torch.cholesky_solve(residual.flatten(1)[..., None], of_rows(factor, rows))
            return solved.view_as(residual)

        return solve

    def _filtered(self, residual: Tensor, rows: Tensor) -> Tensor:
        """The closed form without a mask, cropped to the support."""
        spectrum = ext.kernel_to_otf(residual, self._shape) / of_rows(self._power + self._weight, rows)
        return _cut(torch.fft.irfft2(spectrum, s=self._shape), residual.shape[-1])


def _cut(values: Tensor, size: int) -> Tensor:
    """The K x K part around the origin of (B, 1, H, W), as a kernel."""
    support = torch.arange(size, device=values.device) - size // 2
    return values[..., (support % values.shape[-2])[:, None], support % values.shape[-1]]
