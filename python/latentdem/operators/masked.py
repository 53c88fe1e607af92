"""Least squares for a blur of which only some pixels were measured, in the image and in the kernel.

If all pixels had been measured, there would be a closed form. The unknowns are therefore the values at the
other pixels, the *fill*: with them in the gaps of y the image follows in closed form, and the right fill is the
one that the blurred image reproduces. With K the blur, N the projection on the gaps and w = y - K x0, filled,

    x - x0 = K^T (K K^T + rho)^-1 w,    N T w = 0,    T = rho (K K^T + rho)^-1,

where N T w is the difference between the fill and its reproduction. N T N is symmetric with eigenvalues between
rho / (1 + rho) and 1. Filling again and again (majorise and minimise) takes about 1 / rho iterations; conjugate
gradients on the normal equations, preconditioned with the closed form, have the same spectrum and take about
1 / sqrt(rho). The slow components are wide and smooth and lie in the frame of the photograph, for which
`frame_preconditioner` has exact inverses. docs/research/deblurring.md compares the errors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import latentdem_ext as ext

from .frame_preconditioner import FramePreconditioner, of_rows

TOLERANCE = 2e-3  # root mean square error of an image in [-1, 1]; that of rounding to 8 bits is 2.3e-3
KERNEL_TOLERANCE = 1e-4  # root mean square error of k * x from that of the kernel
MAX_ITERATIONS = 100  # a frame needs about 5; many holes with little noise need most

_CHECK = 2  # iterations between two checks for convergence, each of which waits for the device
_DENSE = 33  # K up to which the kernel's preconditioner is a K^2 x K^2 matrix
_ROUNDING = 4  # units of rounding of w, below which iterations do not improve the result


def masked_proximal(
    x0: Tensor,
    kernel: Tensor,
    y: Tensor,
    mask: Tensor,
    rho: Tensor,
    fill: Tensor | None = None,
    tolerance: float = TOLERANCE,
    iterations: int = MAX_ITERATIONS,
) -> tuple[Tensor, Tensor]:
    """argmin_x ||mask (y - k * x)||^2 + rho ||x - x0||^2, each sample to the tolerance.

    It takes 6 real transforms of the padded grid, and 2 per iteration.

    Args:
        x0: (B, C, H, W).
        kernel: (B, 1, K, K).
        y: (B, C, H, W); its unmeasured pixels do not count.
        mask: (1 or B, 1, H, W), 1 where y was measured, else 0.
        rho: (B,), positive.
        fill: (B, C, H, W) values of k * x at unmeasured pixels to start from; None for those of k * x0.
        tolerance: see `TOLERANCE`; relative to the correction x - x0 where that is greater than 1.
        iterations: maximum.

    Returns:
        The image and its fill, zero at the measured pixels, (B, C, H, W) each.
    """
    shape = (x0.shape[-2], x0.shape[-1])
    otf, weight, gaps = ext.kernel_to_otf(kernel, shape), rho.view(-1, 1, 1, 1), 1 - mask
    power = otf.real.square() + otf.imag.square()
    closed, eigenvalues = otf.conj() / (power + weight), weight / (power + weight)
    blurred = torch.fft.irfft2(otf * torch.fft.rfft2(x0), s=shape)
    start = torch.zeros_like(x0) if fill is None else gaps * (fill - blurred)
    spectrum = torch.fft.rfft2(mask * (y - blurred) + start)

    def normal(v: Tensor, rows: Tensor) -> Tensor:
        return of_rows(gaps, rows) * torch.fft.irfft2(of_rows(eigenvalues, rows) * torch.fft.rfft2(v), s=shape)

    condition = FramePreconditioner(eigenvalues, mask, shape)
    # rho ||x - x*||^2 is at most the square of the fill's error in the norm of T, which the preconditioned
    # residual estimates.
    allowed = weight * (tolerance / condition.caution) ** 2 * (x0[0].numel() + _norm2(closed * spectrum, shape))
    allowed = allowed.maximum((_ROUNDING * torch.finfo(x0.dtype).eps) ** 2 * _norm2(spectrum, shape))
    difference = -gaps * torch.fft.irfft2(eigenvalues * spectrum, s=shape)
    change = _conjugate_gradients(normal, difference, condition, allowed, iterations)
    x = x0 + torch.fft.irfft2(closed * (spectrum + torch.fft.rfft2(change)), s=shape)
    return x, gaps * blurred + start + change


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
        self._solution = start + _conjugate_gradients(
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


def _conjugate_gradients(
    normal: Callable[[Tensor, Tensor], Tensor],
    residual: Tensor,
    condition: Callable[[Tensor, Tensor], Tensor],
    allowed: Tensor,
    iterations: int,
) -> Tensor:
    """Solution of normal(v) = `residual`, from zero; each sample leaves the iteration when it has converged.

    Args:
        normal: symmetric positive definite map of (b, ...) for the samples `rows` (b,) of the batch.
        residual: (B, ...), four dimensions.
        condition: preconditioner with the same arguments.
        allowed: (B, 1, 1, 1) upper limit of the squared preconditioned residual.
        iterations: maximum.
    """
    rows = torch.arange(len(residual), device=residual.device)
    solution = torch.zeros_like(residual)
    direction = condition(residual, rows)
    power = _inner(residual, direction)
    every = 1 if residual.device.type == "cpu" else _CHECK
    for done in range(iterations):
        if done % every == 0:
            left = (power > allowed[rows]).flatten()
            count = int(left.sum())
            if count == 0:
                break
            if count < len(rows):
                rows, residual, direction, power = (v[left] for v in (rows, residual, direction, power))
        image = normal(direction, rows)
        step = _ratio(power, _inner(direction, image))
        solution.index_add_(0, rows, step * direction)
        residual = residual - step * image
        conditioned = condition(residual, rows)
        power, before = _inner(residual, conditioned), power
        direction = conditioned + _ratio(power, before) * direction
    return solution


def _cut(values: Tensor, size: int) -> Tensor:
    """The K x K part around the origin of (B, 1, H, W), as a kernel."""
    support = torch.arange(size, device=values.device) - size // 2
    return values[..., (support % values.shape[-2])[:, None], support % values.shape[-1]]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)


def _norm2(spectrum: Tensor, shape: tuple[int, int]) -> Tensor:
    """(B, 1, 1, 1) squared norms of the real images (B, C, H, W) with this half spectrum."""
    square = spectrum.real.square() + spectrum.imag.square()
    # The first column, and the last of an even width, occur once in the whole spectrum.
    once = square[..., :1] if shape[1] % 2 else square[..., [0, -1]]
    total = 2 * square.sum((1, 2, 3), keepdim=True) - once.sum((1, 2, 3), keepdim=True)
    return total / (shape[0] * shape[1])


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b of non-negative numbers; 0 / 0, as in a solved sample, gives 0."""
    return a / b.clamp_min(torch.finfo(b.dtype).tiny)
