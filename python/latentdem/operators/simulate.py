"""Simulated measurements: a sharp image with blur and noise, as in the evaluation protocols."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..checks import check_kernel_size
from ..errors import UserError
from ..io.images import MIN_SIDE

SimulatedBoundary = Literal["circular", "valid"]


def blur_and_add_noise(
    sharp: Tensor,
    kernel: Tensor,
    noise_sigma: float,
    generator: np.random.Generator,
    boundary: SimulatedBoundary = "circular",
) -> tuple[Tensor, Tensor]:
    """A measurement y = k * x + n and the sharp image on the same pixels.

    Args:
        sharp: (1, C, H, W) in [-1, 1].
        kernel: (1, 1, K, K), non-negative, sum 1, origin at index K // 2.
        noise_sigma: standard deviation of the white Gaussian noise, in units of [-1, 1].
        generator: random generator of the noise.
        boundary: "circular" wraps at the frame; "valid" keeps only the pixels that do not depend on
            content beyond the frame, as in a photograph, so both results are smaller by K - 1.

    Returns:
        The measurement, which may leave [-1, 1] by its noise, and the reference, both float32 (1, C, h, w).

    Raises:
        UserError: the kernel is larger than the image, or too little of it is left without wrapping.
    """
    import latentdem_ext

    size, (height, width) = kernel.shape[-1], sharp.shape[-2:]
    check_kernel_size(size, height, width)
    blurred = latentdem_ext.blur(sharp, kernel)
    if boundary == "valid":
        # y[n] reads x[n - (m - K // 2)] for m = 0..K-1: outside these rows and columns it wraps.
        first, last = size - 1 - size // 2, size // 2
        if min(height, width) - size + 1 < MIN_SIDE:
            raise UserError(
                f"Without wrapping, a {size} x {size} kernel leaves less than {MIN_SIDE} x {MIN_SIDE} pixels "
                f"of an image of {width} x {height}; use a smaller kernel or a larger image."
            )
        inner = (..., slice(first, height - last), slice(first, width - last))
        blurred, sharp = blurred[inner], sharp[inner]
    noise = torch.from_numpy(generator.standard_normal(blurred.shape, dtype=np.float32))
    return blurred + noise_sigma * noise, sharp
