"""Blur of several photographs of one image: a kernel, a mask and a noise level each, and one sum of squares."""

from __future__ import annotations

import torch
from torch import Tensor

import latentdem_ext as ext

from .base import Operator
from .least_squares import conjugate_gradients
from .limits import Limits

_TOLERANCE = 1e-3  # of the gradient of the least squares, in units of that at the start
_ITERATIONS = 100  # at most; 10 to 40 are usual


class BurstBlur(Operator):
    """y_f = k_f * x + n_f for the frames f = 1 ... F of a burst; convolutions are circular on the grid of x.

    The frames stand beside each other as channels, each multiplied by a weight w_f that gives all of them the
    same noise. The sum of squares is then, but for a factor, minus the logarithm of the likelihood of them all.

    Args:
        mask: (F, 1, H, W), 1 where a frame was measured, else 0.
        weight: (F,) w_f.

    Attributes:
        limits: of the images that `proximal` gives; None for none.
    """

    def __init__(self, mask: Tensor, weight: Tensor) -> None:
        self.mask, self.weight = mask, weight
        self.limits: Limits | None = None

    def stacked(self, frames: Tensor) -> Tensor:
        """The measurement (1, F C, H, W) of frames (F, C, H, W)."""
        return (self.weight.view(-1, 1, 1, 1) * frames).flatten(0, 1)[None]

    def __call__(self, x: Tensor, kernels: Tensor) -> Tensor:
        """w_f k_f * x, (N, F C, H, W), of x (N, C, H, W) and kernels (N, F, K, K)."""
        frames = len(self.weight)
        weighted = self.weight.view(1, -1, 1, 1) * kernels
        blurred = ext.blur(x.repeat_interleave(frames, 0), weighted.flatten(0, 1)[:, None])
        return blurred.view(len(x), -1, *x.shape[-2:])

    def measured(self, y: Tensor) -> Tensor:
        """The mask of each frame for each of its channels, (1, F C, H, W)."""
        return self.mask.repeat_interleave(y.shape[1] // len(self.mask), 0)[:, 0][None]

    def mean_square(self, x: Tensor, kernels: Tensor, y: Tensor) -> Tensor:
        """(N,) mean square of y - A x over what was measured of all frames."""
        mask = self.measured(y)
        gap = mask * (y - self(x, kernels))
        return gap.square().sum((1, 2, 3)) / mask.sum()

    def spectrum(self, x: Tensor, kernels: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues of A A^T and mean squares of the coefficients of y - A x, (N, F H (W // 2 + 1)) each.

        At each frequency the frames are one measurement of the image, with the eigenvalue sum_f |w_f F k_f|^2,
        and F - 1 of nothing but noise. Unmeasured pixels are set to zero, and the spectrum is divided by the
        measured share.
        """
        mask, otf, frames = self.measured(y), self._otf(kernels, y), len(self.weight)
        error = torch.fft.rfft2(mask * (y - self(x, kernels)), norm="ortho")
        error = error.unflatten(1, (frames, -1)) / mask.mean().sqrt()
        gain = otf.abs().square().sum(1)  # (N, 1, H, W')
        along = (otf.conj() * error).sum(1).abs().square() / gain.clamp_min(torch.finfo(gain.dtype).tiny)
        rest = (error.abs().square().sum(1) - along).clamp_min(0).mean(1) / max(frames - 1, 1)
        gains = torch.cat([gain, torch.zeros_like(gain).expand(-1, frames - 1, -1, -1)], 1)
        powers = torch.cat([along.mean(1, keepdim=True), rest[:, None].expand(-1, frames - 1, -1, -1)], 1)
        return gains.flatten(1), powers.flatten(1)

    def proximal(self, x0: Tensor, kernels: Tensor, y: Tensor, rho: Tensor, iterations: int = 10) -> Tensor:
        """argmin_x ||y - A x||^2 + rho ||x - x0||^2 over what was measured, rho (N,).

        `iterations` are those of the splitting that keeps `limits`, if there are any.
        """
        if self.limits is None:
            return self._unlimited(x0, kernels, y, rho)
        return self.limits.proximal(
            lambda target, weight: self._unlimited(target, kernels, y, weight), x0, rho, iterations
        )

    def find_limits(self, kernels: Tensor, y: Tensor, variance: Tensor) -> None:
        """Sets `limits` from what a burst `y` (1, F C, H, W) with noise of `variance` (1,) tells of them."""
        frames = y.unflatten(1, (len(self.weight), -1)) / self.weight.view(1, -1, 1, 1, 1)
        self.limits = Limits.of(
            lambda x0, rho: self._unlimited(x0, kernels, y, rho),
            lambda x: self.mean_square(x, kernels, y),
            frames.mean(1),
            variance,
        )
        self.warm_start = None

    def _unlimited(self, x0: Tensor, kernels: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        """`proximal` without limits, by conjugate gradients on the spectrum of the image.

        The preconditioner is the inverse where everything was measured.
        """
        size, weight, frames = (y.shape[-2], y.shape[-1]), rho.view(-1, 1, 1, 1), len(self.weight)
        otf, mask = self._otf(kernels, y), self.mask[None]
        multiplicity = torch.full((size[1] // 2 + 1,), 2.0, dtype=y.dtype, device=y.device)
        multiplicity[0] = 1  # of the half plane of frequencies in the whole
        if size[1] % 2 == 0:
            multiplicity[-1] = 1

        def transposed(gap: Tensor) -> Tensor:
            """The spectrum of A^T of a masked gap (N, F, C, H, W)."""
            return (otf.conj() * torch.fft.rfft2(mask * gap)).sum(1)

        def normal(change: Tensor) -> Tensor:
            seen = torch.fft.irfft2(otf * change[:, None], s=size)
            return transposed(seen) + weight * change

        def inner(a: Tensor, b: Tensor) -> Tensor:
            return (multiplicity * (a.real * b.real + a.imag * b.imag)).sum((1, 2, 3), keepdim=True)

        warm = self.warm_start
        start = warm if warm is not None and warm.shape == x0.shape else x0
        gap = (y - self(start, kernels)).unflatten(1, (frames, -1))
        right = transposed(gap) + weight * torch.fft.rfft2(x0 - start)
        inverse = 1 / (otf.abs().square().sum(1) + weight)
        change = conjugate_gradients(normal, right, _ITERATIONS, inner, inverse, _TOLERANCE)
        self.warm_start = start + torch.fft.irfft2(change, s=size)
        return self.warm_start

    def _otf(self, kernels: Tensor, y: Tensor) -> Tensor:
        """w_f F k_f, (N, F, 1, H, W // 2 + 1)."""
        otf = ext.kernel_to_otf(kernels.flatten(0, 1)[:, None], (y.shape[-2], y.shape[-1]))
        return self.weight.view(1, -1, 1, 1, 1) * otf.view(len(kernels), -1, 1, *otf.shape[-2:])
