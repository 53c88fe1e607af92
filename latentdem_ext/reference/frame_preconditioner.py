"""The preconditioner for pixels that were not measured: exact inverses on the frame of a photograph.

The unmeasured frame of a photograph is a band of rows and a band of columns of the padded grid. Along its
length each band is a whole circle of the grid, so a Fourier transform along it makes T = rho (K K^T + rho)^-1
block-diagonal there, with blocks small enough to invert. The sum of both inverses is the preconditioner
(additive Schwarz with overlapping subdomains; Toselli and Widlund, "Domain Decomposition Methods", 2005).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._weight_cache import WeightCache

CAUTION = 2.5, 6.0  # for a frame alone, and with other gaps
_BAND = 96  # rows (columns) of the frame that get exact blocks, those nearest to measured pixels
LEAST = 1e-6  # least eigenvalue of T in the blocks


class FramePreconditioner:
    """Preconditioner of N T N: inverses on the bands beside the measured rectangle, the diagonal at other gaps.

    Attributes:
        caution: (1 or B, 1, 1, 1) factor by which the preconditioned residual may underestimate an error.

    Args:
        otf: (B, 1, H, W // 2 + 1) transfer function of K.
        rho: (B,).
        mask: (1 or B, 1, H, W).
        lines: what `frame_lines` returns for it.
    """

    def __init__(self, otf: Tensor, rho: Tensor, mask: Tensor, lines: tuple[Tensor, Tensor]) -> None:
        response = _response(otf, rho, mask.shape[-1])
        rows, columns = lines
        self._bands = (
            _Band(response, rows, mask.dtype),
            _Band(response.transpose(1, 2), columns, mask.dtype),
        )
        holes = 1 - mask
        holes[..., rows, :] = 0
        holes[..., columns] = 0
        self.caution = CAUTION[0] + (CAUTION[1] - CAUTION[0]) * holes.amax((1, 2, 3), keepdim=True)
        self._holes = holes / response[:, :1, :1, None].to(mask)

    def __call__(self, residual: Tensor, rows: Tensor) -> Tensor:
        """The preconditioned residual (b, C, H, W) of the samples `rows` (b,)."""
        across, down = self._bands
        solved = of_rows(self._holes, rows) * residual
        across.solve_into(solved, residual, rows)
        down.solve_into(solved.transpose(-1, -2), residual.transpose(-1, -2), rows)
        return solved


def _response(otf: Tensor, rho: Tensor, width: int) -> Tensor:
    """(B, H, W) T as a convolution, in float64: the blocks need more digits than the images."""
    power = otf.real.double().square() + otf.imag.double().square()
    weight = rho.double().view(-1, 1, 1, 1)
    eigenvalues = (weight / (power + weight)).clamp_min(LEAST)
    return torch.fft.irfft2(eigenvalues, s=(otf.shape[-2], width))[:, 0]


def frame_lines(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and the columns of the frame that get exact blocks, in their order on the circle of the grid.

    Their number depends on the values of the mask (1 or B, 1, H, W), which the host reads once for each mask.
    """
    return _kept_lines(mask, 1), _kept_lines(mask, 0)


def is_frame(mask: Tensor) -> bool:
    """Whether all that a mask (1 or B, 1, H, W) leaves out are the rows and columns of `frame_lines`."""
    holes = (mask > 0).logical_not()
    rows, columns = frame_lines(mask)
    holes[..., rows, :] = False
    holes[..., columns] = False
    return not bool(holes.any())


def _lines_along(mask: Tensor, axis: int) -> Tensor:
    return _lines((mask > 0).flatten(0, 1).any(0).any(axis))


_kept_lines: WeightCache[int] = WeightCache(_lines_along)


def _lines(measured: Tensor) -> Tensor:
    length = len(measured)
    inside = measured.nonzero().flatten().tolist() or [0]
    first, last = inside[0], inside[-1]
    gap = length - 1 - (last - first)
    # Both halves have the same width, for the symmetry.
    wide = range(gap) if gap <= _BAND else (*range(_BAND // 2), *range(gap - _BAND // 2, gap))
    lines = [(last + 1 + i) % length for i in wide]
    return torch.tensor(lines, device=measured.device, dtype=torch.long)


class _Band:
    """Inverse of T on whole rows of the padded grid, a block for each frequency along them.

    T is real and symmetric about each pixel. A block A is therefore Hermitian, and reversed it is its own
    conjugate. On vectors with the same symmetry it acts as the real symmetric matrix Re A + Im A J, where J
    reverses a vector, and any vector is one of these plus i times another.

    Args:
        response: (B, H, W) T as a convolution.
        rows: those of the band.
        dtype: dtype of the images.
    """

    def __init__(self, response: Tensor, rows: Tensor, dtype: torch.dtype) -> None:
        self._rows = rows
        if not len(rows):
            return
        lags = torch.fft.rfft(response, dim=-1)[:, (rows[:, None] - rows) % response.shape[1]].movedim(-1, 1)
        real = lags.real + lags.imag.flip(-1)
        self._inverse = _inverse(real).to(dtype)

    def solve_into(self, solved: Tensor, residual: Tensor, samples: Tensor) -> None:
        """Adds the solution for these rows of `residual` (b, C, H, W) to `solved`."""
        if not len(self._rows):
            return
        width = residual.shape[-1]
        part = torch.fft.rfft(residual[..., self._rows, :]).permute(0, 3, 2, 1)  # (b, F, R, C)
        plus, minus = part.real + part.imag, part.real - part.imag
        folded = torch.cat([plus + minus.flip(-2), plus.flip(-2) - minus], -1) / 2
        one, other = (of_rows(self._inverse, samples) @ folded).chunk(2, -1)
        plus, minus = one + other.flip(-2), one.flip(-2) - other
        part = torch.complex(plus + minus, plus - minus) / 2
        solved[..., self._rows, :] += torch.fft.irfft(part.permute(0, 3, 2, 1), n=width)


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse of symmetric positive definite matrices (..., R, R)."""
    if matrix.device.type == "cpu":
        return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    # Neither waits to see whether a factor exists; it does, as no eigenvalue is below `LEAST`.
    unit = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    half = torch.linalg.solve_triangular(torch.linalg.cholesky_ex(matrix).L, unit, upper=False)
    return half.mT @ half


def of_rows(values: Tensor, rows: Tensor) -> Tensor:
    """The entries of `values` (1 or B, ...) that belong to the samples `rows` (b,)."""
    return values if len(values) == 1 or len(values) == len(rows) else values[rows]
