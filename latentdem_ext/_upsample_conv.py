"""Nearest upsampling and a 3 x 3 convolution, as four 2 x 2 convolutions at the low resolution.

An upsampled image repeats every pixel twice, so of the three taps of a row two always meet the same pixel:
output row 2i sees pixel rows i - 1 (tap 0) and i (taps 1 and 2), output row 2i + 1 sees i (taps 0 and 1) and
i + 1 (tap 2). Columns behave alike. Adding up the taps that meet leaves a 2 x 2 kernel for each of the four
parities of the output: 4/9 of the multiplications, and the large image is never read. The zero border of the
large image becomes a zero border of one pixel of the small one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _backends, _checks, reference


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """3 x 3 convolution (O, C, 3, 3) of the 2x upsampled (B, C, H, W): see `reference.upsample_conv`.

    Raises:
        TypeError: an argument is not a floating-point tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together.
    """
    _checks.tensor("x", x, _checks.REAL_DTYPES, 4)
    _checks.tensor("weight", weight, _checks.REAL_DTYPES, 4)
    _checks.companion("weight", weight, "x", x, (weight.shape[0], x.shape[1], 3, 3))
    if bias is not None:
        _checks.companion("bias", bias, "weight", weight, weight.shape[:1])
    if _backends.requested_backend() == "reference":
        return reference.upsample_conv(x, weight, bias)
    return _four_convolutions(x, weight, bias)


def _fold(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The two-tap kernels along `dim` of the even and of the odd output positions."""
    first, middle, last = weight.unbind(dim)
    return torch.stack((first, middle + last), dim), torch.stack((first + middle, last), dim)


def _four_convolutions(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    batch, _, height, width = x.shape
    folded = torch.cat([corner for rows in _fold(weight, 2) for corner in _fold(rows, 3)])
    # One convolution gives all four parities on (H + 1) x (W + 1) points; each parity is a window of it.
    every = F.conv2d(x, folded, None if bias is None else bias.repeat(4), padding=1)
    every = every.view(batch, 2, 2, weight.shape[0], height + 1, width + 1)
    rows = [
        torch.stack([every[:, a, b, :, a : a + height, b : b + width] for b in (0, 1)], dim=-1) for a in (0, 1)
    ]
    return torch.stack(rows, dim=3).view(batch, weight.shape[0], 2 * height, 2 * width)
