"""The M-step: half-quadratic splitting updates of a blur kernel on a lattice of its own size."""

from __future__ import annotations

from torch import Tensor

from . import _checks, reference
from .reference import HQSFactors


def hqs_prepare(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    kernel_size: int,
    *,
    per_channel: bool = False,
    y_hat: Tensor | None = None,
) -> HQSFactors:
    """Everything `hqs_kernel_update` needs to know of the images: see `reference.hqs_prepare`.

    x (B, S, C, H, W) holds S posterior samples of each image, y (B, C, H, W), weight (B,) > 0 on the scale of
    sum |F x|^2 (the paper's delta sigma^2, delta = 5e6).

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, or K is not between 1 and min(H, W).
    """
    _checks.tensor("y", y, _checks.FFT_DTYPES, 4)
    _checks.tensor("x", x, _checks.FFT_DTYPES, 5)
    _checks.companion("x", x, "y", y, (y.shape[0], x.shape[1], *y.shape[1:]))
    if x.shape[1] < 1 or x.shape[2] < 1:
        raise ValueError(f"x must hold at least one sample and one channel, its shape is {tuple(x.shape)}")
    _checks.per_sample("weight", weight, "y", y)
    _checks.kernel_size(kernel_size, y.shape[-2], y.shape[-1])
    if y_hat is not None:
        _checks.spectrum("y_hat", y_hat, "y", y)
    return reference.hqs_prepare(x, y, weight, kernel_size, per_channel, y_hat)


def hqs_kernel_update(kernel: Tensor, factors: HQSFactors, *, project: bool = True) -> Tensor:
    """One update of a kernel (B, 1, K, K), projected unless told not to: see `reference.hqs_kernel_update`.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor, or its dtype is not that of `factors`.
        ValueError: `kernel` is not of the shape or on the device of `factors.data_term`.
    """
    _checks.kernel(kernel)
    _checks.companion("kernel", kernel, "factors.data_term", factors.data_term)
    side = factors.filter.shape[-2]
    half = (kernel.shape[0], 1, side, side // 2 + 1)
    _checks.companion("factors.filter", factors.filter, "kernel", kernel, half)
    if side < 2 * kernel.shape[-1] - 1:
        raise ValueError(f"factors.filter has {side} points a side, too few for K = {kernel.shape[-1]}")
    return reference.hqs_kernel_update(kernel, factors, project)


def project_kernel(kernel: Tensor) -> Tensor:
    """Non-negative, sum 1: see `reference.project_kernel`.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor.
        ValueError: `kernel` does not have shape (B, 1, K, K).
    """
    return reference.project_kernel(_checks.kernel(kernel))
