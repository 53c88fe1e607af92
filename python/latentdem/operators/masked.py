"""Least squares for a blur of which only some pixels were measured: in the kernel, and what its mask says."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference
from latentdem_ext.reference.frame_preconditioner import is_frame
from latentdem_ext.reference.masked import FRAME_ITERATIONS, MAX_ITERATIONS, UNASKED

_HOLE = 9  # pixels; smaller gaps in a mask are no frame
KERNEL_TOLERANCE = 1e-4  # root mean square error of k * x from that of the kernel

_ROUNDING = 100  # units of rounding of its diagonal that make that matrix positive definite as computed
_DENSE = 33  # K up to which the kernel's preconditioner is a K^2 x K^2 matrix
# Iterations on a GPU, which is not asked when they are enough, of the first and of every later step, with that
# matrix and without it; on photographs they took at most 5 and 2, 31 and 13.
_GPU_ITERATIONS = {True: (8, 4), False: (40, 16)}


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
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        mask: Tensor,
        weight: Tensor,
        tolerance: float = KERNEL_TOLERANCE,
    ) -> None:
        self._x, self._y, self._mask = x.flatten(1, 2).contiguous(), y.repeat(1, x.shape[1], 1, 1), mask
        self._weight, self._tolerance = weight, tolerance
        self._factor: Tensor | None = None
        self._kernel = self._solution = self._residual = weight.new_empty(0)

    def __call__(self, kernel: Tensor) -> Tensor:
        """The kernel (B, 1, K, K) that follows `kernel`, non-negative with sum 1."""
        size, first = kernel.shape[-1], not len(self._kernel)
        if first:
            self._factor = self._factored(size) if size <= _DENSE else None
            gap = self._mask * (self._y - ext.blur(self._x, kernel))
            self._solution, self._residual = kernel, reference.blur_kernel_gradient(self._x, gap, size)
        else:
            self._residual = self._residual + self._weight.view(-1, 1, 1, 1) * (kernel - self._kernel)
        self._kernel = kernel
        change, self._residual = ext.masked_kernel_solve(
            self._x,
            self._mask,
            self._weight,
            self._residual,
            self._factor,
            tolerance=self._tolerance,
            iterations=self._iterations(first),
        )
        self._solution = self._solution + change
        return ext.project_kernel(self._solution)

    def _iterations(self, first: bool) -> int:
        if _ends_alone(self._mask):
            return MAX_ITERATIONS
        return _GPU_ITERATIONS[self._factor is not None][0 if first else 1]

    def _factored(self, size: int) -> Tensor:
        """Cholesky factor of the autocorrelation of the windowed x, a K^2 x K^2 matrix."""
        windowed = torch.fft.rfft2(self._mask.sqrt() * self._x)
        power = (windowed.real.square() + windowed.imag.square()).sum(1)
        height, width = self._x.shape[-2:]
        lags = torch.fft.irfft2(power, s=(height, width))
        reach = torch.arange(1 - size, size, device=lags.device)
        lags = lags[:, (reach % height)[:, None], reach % width]
        # The entry for the kernel's values a and b is the lag a - b. With a counted backwards it is a sum of
        # indices, which strides express.
        batch, row, column = lags.stride()
        shape, strides = (len(lags), size, size, size, size), (batch, row, column, row, column)
        matrix = lags.as_strided(shape, strides).reshape(len(lags), size**2, size**2).flip(-2)
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        rounding = _ROUNDING * torch.finfo(lags.dtype).eps * diagonal[:, :1]
        diagonal.add_(self._weight.view(-1, 1) + rounding)
        # A GPU is not asked whether there is a factor, which would mean to wait.
        checked = matrix.device.type == "cpu"
        return torch.linalg.cholesky_ex(matrix, upper=True, check_errors=checked).L.mT  # which is contiguous


def most_iterations(mask: Tensor) -> int:
    """Iterations of a proximal step with a mask, at most.

    Where the mask is a frame on a GPU whose conjugate gradients do not end by themselves, they are so few that
    it is not asked whether they have converged.
    """
    return MAX_ITERATIONS if _ends_alone(mask) or not is_frame(mask) else FRAME_ITERATIONS


def asks(mask: Tensor, iterations: int) -> bool:
    """Whether proximal steps with a mask ask a GPU for values, which means to wait for it."""
    return iterations > UNASKED and not ext.masked_solves_end_on_device(mask)


def _ends_alone(mask: Tensor) -> bool:
    return mask.device.type == "cpu" or ext.masked_solves_end_on_device(mask)


def eroded(mask: Tensor, margin: int) -> Tensor:
    """`mask` (B, 1, H, W) without its pixels nearer than `margin` to its frame; unchanged if none would remain.

    Holes of few pixels inside the measured rectangle are no frame: what lies behind them is known well.
    """
    rectangle = (mask.amax(-1, keepdim=True) * mask.amax(-2, keepdim=True)) > 0
    closed = 1 - spread(1 - spread(mask, _HOLE // 2), _HOLE // 2)
    closed = torch.where(rectangle, closed.maximum(mask), mask)
    inside = mask * (1 - spread(1 - closed, margin))
    return torch.where(inside.any(), inside, mask)


def spread(mask: Tensor, radius: int) -> Tensor:
    """The largest value of `mask` (B, 1, H, W) within `radius` pixels across and down."""
    across = F.max_pool2d(mask, (1, 2 * radius + 1), 1, (0, radius))
    return F.max_pool2d(across, (2 * radius + 1, 1), 1, (radius, 0))
