"""The M-step with a plug-and-play denoiser of kernels: half-quadratic splitting and a small DnCNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import per_sample
from .fourier import HQSFactors, hqs_kernel_update, project_kernel

__all__ = ["denoise_kernel", "hqs_m_step"]


def hqs_m_step(
    kernel: Tensor,
    factors: HQSFactors,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    level: Tensor,
    relative: bool = True,
    iterations: int = 20,
) -> Tensor:
    """Updates and denoising in turn: k <- P(D(`hqs_kernel_update`(k))), P = `project_kernel`.

    Args:
        kernel: (B, 1, K, K), to start from.
        factors: what `hqs_prepare` returned for this image and K.
        weights, biases: of the denoiser D, see `denoise_kernel`.
        level: (B,) standard deviation of the noise that D removes.
        relative: whether the levels are in units of the peak of what D is given, or of the kernel itself.
        iterations: at least 1.

    Returns:
        (B, 1, K, K), non-negative, sum 1.
    """
    for _ in range(iterations):
        kernel = hqs_kernel_update(kernel, factors)
        kernel = project_kernel(denoise_kernel(kernel, weights, biases, level, relative))
    return kernel


def _convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1)


def denoise_kernel(
    kernel: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    level: Tensor,
    relative: bool,
    convolve: Callable[[Tensor, Tensor, Tensor], Tensor] = _convolve,
) -> Tensor:
    """p (k / p - s N(k / p, s)): N, a DnCNN, predicts the noise of a kernel at peak 1 in units of its level s.

    N has 3 x 3 convolutions with ReLU in between and sees the kernel and a constant map of the level.

    Args:
        kernel: (B, 1, K, K), with peaks p. One without a positive value comes back as zeros.
        weights: (C1, 2, 3, 3), (C2, C1, 3, 3), ..., (1, Cn, 3, 3).
        biases: (C1,), (C2,), ..., (1,).
        level: (B,), the s, or with `relative` false s p.
        relative: what `level` is in units of.
        convolve: (x, weight, bias) -> the convolution that keeps height and width.

    Returns:
        (B, 1, K, K), not clipped and not normalised.
    """
    peak = kernel.amax(dim=(1, 2, 3), keepdim=True).clamp_min(0)
    scaled = kernel / torch.where(peak > 0, peak, torch.ones_like(peak))
    level = per_sample(level, kernel) if relative else per_sample(level, kernel) / peak
    level_map = level.expand_as(kernel)
    x = torch.cat([scaled, level_map], dim=1).contiguous(memory_format=torch.channels_last)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = convolve(x.relu() if layer else x, weight, bias)
    return peak * (scaled - level_map * x)
