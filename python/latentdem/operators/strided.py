"""Super-resolution: a blur followed by sampling every f-th pixel of every f-th row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import latentdem_ext as ext

from .blur import HQS, Blur, Denoiser


class StridedBlur(Blur):
    """y = (k * x) on a grid of `stride` pixels + n; y has the size of x, and `mask` marks the grid.

    A A^T is a circular convolution on the grid, whose eigenvalues are those of the blur summed over the
    frequencies that the sampling aliases:

        g = 1 / f^2 sum_aliases |F k|^2,   A (.) = every f-th pixel of k * (.).

    Args:
        kernel_size, denoiser, hqs, fixed: see `Blur`.
        mask: (1, 1, H, W), 1 on the grid where y was measured; H and W are multiples of the stride.
        stride: sampling factor f.
    """

    def __init__(
        self,
        kernel_size: int,
        denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor] | None = None,
        hqs: HQS | None = None,
        mask: Tensor | None = None,
        fixed: bool = False,
        *,
        stride: int,
    ) -> None:
        super().__init__(kernel_size, denoiser, hqs, mask, fixed)
        if mask is None:
            raise ValueError("the grid is needed")
        marked = (mask[0, 0] > 0).nonzero()
        row, column = (int(marked[0, axis]) % stride for axis in (0, 1))
        self._stride, self._on_grid = stride, mask
        self._grid = (..., slice(row, None, stride), slice(column, None, stride))
        self._share = mask[self._grid].mean()

    def spectrum(self, x: Tensor, kernel: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The eigenvalues above and the orthonormal power spectrum of y - A x on the grid.

        Unmeasured pixels are set to zero and the spectrum is divided by the measured share.
        """
        gain = self._gain(kernel, (y.shape[-2], y.shape[-1]))
        error = ((y - self(x, kernel)) * self._on_grid)[self._grid]
        power = torch.fft.fft2(error, norm="ortho").abs().square().mean(1) / self._share
        return gain.flatten(1), power.flatten(1)

    def _unlimited(self, x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        """x0 + A^T (A A^T + rho)^-1 (y - A x0), in closed form where the whole grid was measured."""
        if self._share < 1:
            return super()._unlimited(x0, kernel, y, rho)
        gap = (y - self(x0, kernel))[self._grid]
        weight = self._gain(kernel, (y.shape[-2], y.shape[-1]))[:, None] + rho.view(-1, 1, 1, 1)
        on_grid = torch.zeros_like(x0)
        on_grid[self._grid] = torch.fft.ifft2(torch.fft.fft2(gap) / weight).real
        return x0 + ext.blur_adjoint(on_grid, kernel)

    def _gain(self, kernel: Tensor, shape: tuple[int, int]) -> Tensor:
        """(B, H / f, W / f) eigenvalues of A A^T."""
        f, (height, width) = self._stride, shape
        delta = kernel.new_zeros(1, 1, height, width)
        delta[..., 0, 0] = 1
        power = torch.fft.fft2(ext.blur(delta.expand(len(kernel), -1, -1, -1), kernel)).abs().square()
        return power.view(-1, f, height // f, f, width // f).sum((1, 3)) / f**2
