"""Layers of latent-diffusion networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["group_norm_silu", "upsample_conv"]


def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """silu(group_norm(x)), the activation of latent-diffusion networks.

    Args:
        x: (B, C, ...).
        groups: number of groups, a divisor of C.
        weight: (C,), of the dtype of x or float32.
        bias: (C,), of the dtype of weight.
        eps: added to the variance.

    Returns:
        shape of x.
    """
    return F.silu(F.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps))


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Nearest-neighbour upsampling by 2, then a 3 x 3 convolution with zero padding of 1.

    Args:
        x: (B, C, H, W).
        weight: (O, C, 3, 3), of the dtype of x or float32.
        bias: (O,), of the dtype of weight.

    Returns:
        (B, O, 2H, 2W).
    """
    bias = None if bias is None else bias.to(x.dtype)
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight.to(x.dtype), bias, padding=1)
