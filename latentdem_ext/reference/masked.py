"""Least squares for a blur of which only some pixels were measured, in the image and in the kernel.

In the image: if all pixels had been measured, there would be a closed form. The unknowns are therefore the
values at the other pixels, the *fill*: with them in the gaps of y the image follows in closed form, and the
right fill is the one that the blurred image reproduces. With K the blur, N the projection on the gaps and
w = y - K x0, filled,

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

from .common import per_sample
from .fourier import crop, kernel_to_otf
from .frame_preconditioner import FramePreconditioner, frame_lines, of_rows

__all__ = ["masked_kernel_solve", "masked_proximal"]

PROXIMAL_TOLERANCE = 2e-3  # root mean square error of an image in [-1, 1]; that of rounding to 8 bits is 2.3e-3
MAX_ITERATIONS = 100  # a frame needs about 5; many holes with little noise need most
FRAME_ITERATIONS = 12  # where the frame is all that was not measured: photographs took 8 at most
UNASKED = 40  # iterations that a GPU does without being asked, which means to wait, whether that was enough
ROUNDING = 4  # units of rounding of w, below which iterations do not improve the result

_CHECK = 2  # iterations between two such questions, where there are more of them


def masked_proximal(
    x0: Tensor,
    kernel: Tensor,
    y: Tensor,
    mask: Tensor,
    rho: Tensor,
    fill: Tensor | None = None,
    tolerance: float = PROXIMAL_TOLERANCE,
    iterations: int = MAX_ITERATIONS,
) -> tuple[Tensor, Tensor]:
    """argmin_x ||mask (y - k * x)||^2 + rho ||x - x0||^2, each sample to the tolerance.

    It takes 5 real transforms of the padded grid, one more without a `fill`, and 2 per iteration.

    Args:
        x0: (B, C, H, W).
        kernel: (B, 1, K, K).
        y: (B, C, H, W); its unmeasured pixels do not count.
        mask: (1 or B, 1, H, W), positive where y was measured, else 0.
        rho: (B,), positive.
        fill: (B, C, H, W) values of k * x at unmeasured pixels to start from; None for those of k * x0.
        tolerance: root mean square error of the image, relative to x - x0 where that is greater than 1.
        iterations: maximum.

    Returns:
        The image and its fill, zero at the measured pixels, (B, C, H, W) each.
    """
    if not x0.numel():
        return x0.clone(), x0.clone()
    lines = frame_lines(mask)
    x0, kernel, y, mask = (value.contiguous() for value in (x0, kernel, y, mask))  # others transform otherwise
    shape, mask = (x0.shape[-2], x0.shape[-1]), (mask > 0).to(x0)
    otf, weight, gaps = kernel_to_otf(kernel, shape), per_sample(rho, x0), 1 - mask
    power = otf.real.square() + otf.imag.square()
    # Not lazy as conj() is: where the operation is called through PyTorch's dispatcher, that is ignored.
    closed, eigenvalues = torch.conj_physical(otf) / (power + weight), weight / (power + weight)
    blurred = otf * torch.fft.rfft2(x0)
    start = gaps * (torch.fft.irfft2(blurred, s=shape) if fill is None else fill)
    spectrum = torch.fft.rfft2(mask * y + start) - blurred

    def normal(v: Tensor, rows: Tensor) -> Tensor:
        return of_rows(gaps, rows) * torch.fft.irfft2(of_rows(eigenvalues, rows) * torch.fft.rfft2(v), s=shape)

    condition = FramePreconditioner(otf, rho, mask, lines)
    # rho ||x - x*||^2 is at most the square of the fill's error in the norm of T, which the preconditioned
    # residual estimates.
    allowed = (
        weight
        * (float(tolerance) / condition.caution) ** 2
        * (x0[0].numel() + _norm2(closed * spectrum, shape))
    )
    allowed = allowed.maximum((ROUNDING * torch.finfo(x0.dtype).eps) ** 2 * _norm2(spectrum, shape))
    difference = -gaps * torch.fft.irfft2(eigenvalues * spectrum, s=shape)
    change, _ = conjugate_gradients(normal, difference, condition, allowed, iterations)
    x = x0 + torch.fft.irfft2(closed * (spectrum + torch.fft.rfft2(change)), s=shape)
    return x, start + change


def masked_kernel_solve(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    right: Tensor,
    factor: Tensor | None,
    tolerance: float,
    iterations: int = MAX_ITERATIONS,
) -> tuple[Tensor, Tensor]:
    """Solution v of (X^T M X + a) v = b, X v = v * x, for kernels v.

    This is the M-step's least squares ||mask (y - k * x)||^2 + a ||k - k_0||^2. Preconditioned with `factor`,
    or with the closed form for the windowed x, cut to the support.

    Args:
        x: (B, C, H, W) images.
        mask: (1 or B, 1, H, W), 1 where their blur was measured, else 0; weights from 0 to 1 are possible.
        weight: (B,) the a, positive.
        right: (B, 1, K, K) the b.
        factor: (B, K^2, K^2) lower Cholesky factor of a matrix like X^T M X + a, or None.
        tolerance: root mean square error of v * x over the pixels and channels.
        iterations: maximum.

    Returns:
        v and b - (X^T M X + a) v, (B, 1, K, K) each.
    """
    if not x.numel():
        return torch.zeros_like(right), right.clone()
    shape, size, a = (x.shape[-2], x.shape[-1]), right.shape[-1], per_sample(weight, x)
    spectrum = torch.fft.rfft2(x)

    def normal(kernel: Tensor, rows: Tensor) -> Tensor:
        images = of_rows(spectrum, rows)
        blurred = torch.fft.irfft2(kernel_to_otf(kernel, shape) * images, s=shape)
        correlated = torch.conj_physical(images) * torch.fft.rfft2(of_rows(mask, rows) * blurred)
        data = crop(torch.fft.irfft2(correlated.sum(1, keepdim=True), s=shape), size)
        return data + of_rows(a, rows) * kernel

    if factor is None:
        windowed = torch.fft.rfft2(mask.sqrt() * x)
        power = (windowed.real.square() + windowed.imag.square()).sum(1, keepdim=True) + a

    def condition(residual: Tensor, rows: Tensor) -> Tensor:
        if factor is not None:
            solved = torch.cholesky_solve(residual.flatten(1)[..., None], of_rows(factor, rows))
            return solved.view_as(residual)
        filtered = kernel_to_otf(residual, shape) / of_rows(power, rows)
        return crop(torch.fft.irfft2(filtered, s=shape), size)

    allowed = (float(tolerance) ** 2 * x[0].numel()) * torch.ones_like(a)
    return conjugate_gradients(normal, right, condition, allowed, iterations)


def conjugate_gradients(
    normal: Callable[[Tensor, Tensor], Tensor],
    residual: Tensor,
    condition: Callable[[Tensor, Tensor], Tensor],
    allowed: Tensor,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    """Solution of normal(v) = `residual`, from zero, and the residual that it leaves.

    A sample that has converged does not move any more, and leaves the iteration where it is known to have. A
    GPU is asked seldom, and not at all for up to `UNASKED` iterations, which it then goes through to the end.

    Args:
        normal: symmetric positive definite map of (b, ...) for the samples `rows` (b,) of the batch.
        residual: (B, ...), four dimensions.
        condition: preconditioner with the same arguments.
        allowed: (B, 1, 1, 1) upper limit of the squared preconditioned residual.
        iterations: maximum.
    """
    rows = torch.arange(len(residual), device=residual.device)
    solution, remaining = torch.zeros_like(residual), residual.clone()
    direction = condition(residual, rows)
    power = _inner(residual, direction)
    on_cpu = residual.device.type == "cpu"
    every = 1 if on_cpu else _CHECK if iterations > UNASKED else 0
    for done in range(iterations):
        left = power > allowed
        if every and done % every == 0:
            count = int(left.sum())
            if count == 0:
                break
            if count < len(rows):
                rows, residual, direction, power, allowed, left = (
                    v[left.flatten()] for v in (rows, residual, direction, power, allowed, left)
                )
        image = normal(direction, rows)
        step = _ratio(power, _inner(direction, image))
        if not on_cpu:
            step = torch.where(left, step, 0.0)
        solution.index_add_(0, rows, step * direction)
        residual = residual - step * image
        remaining.index_copy_(0, rows, residual)
        conditioned = condition(residual, rows)
        power, before = _inner(residual, conditioned), power
        direction = conditioned + _ratio(power, before) * direction
    return solution, remaining


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)


def _norm2(spectrum: Tensor, shape: tuple[int, int]) -> Tensor:
    """(B, 1, 1, 1) squared norms of the real images (B, C, H, W) with this half spectrum."""
    square = spectrum.real.square() + spectrum.imag.square()
    # The first column, and the last of an even width, occur once in the whole spectrum.
    once = square[..., :1] if shape[1] % 2 else torch.cat([square[..., :1], square[..., -1:]], -1)
    total = 2 * square.sum((1, 2, 3), keepdim=True) - once.sum((1, 2, 3), keepdim=True)
    return total / (shape[0] * shape[1])


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b of non-negative numbers; 0 / 0, as in a solved sample, gives 0."""
    return a / b.clamp_min(torch.finfo(b.dtype).tiny)
