"""Deconvolution with few edges, the image step of kernel estimation from gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import per_sample
from .fourier import kernel_to_otf

__all__ = ["l0_deconvolution"]


def l0_deconvolution(
    y: Tensor, kernel: Tensor, penalty: Tensor, weight: Tensor, growth: Tensor, last_weight: Tensor
) -> Tensor:
    """argmin_x ||y - k * x||^2 + penalty ||D x||_0 by half-quadratic splitting (Xu et al., 2011 and 2013).

    D x are the differences to the next pixel on the right and to the next one below, which wrap around, and
    ||D x||_0 counts the pixels where they are not zero in all channels. From x = y on, while the weight b of a
    sample is below its `last_weight`,

        g = D x where |D x|^2 >= penalty / b, summed over the channels, and zero elsewhere,
        x = argmin ||y - k * x||^2 + b ||D x - g||^2 = F^-1 (conj(F k) F y + b F D^T g) / (|F k|^2 + b |F D|^2),

    and b is multiplied by `growth`.

    Args:
        y: (B, C, H, W).
        kernel: (B, 1, K, K).
        penalty: (B,), positive.
        weight: (B,) first weight, positive.
        growth: (B,), above 1.
        last_weight: (B,) where it ends; 0 returns y.

    Returns:
        (B, C, H, W).
    """
    if y.numel() == 0:  # MKL refuses an empty batch
        return y.clone()
    size = y.shape[-2:]
    otf = kernel_to_otf(kernel, (size[0], size[1]))
    data, power = torch.conj_physical(otf) * torch.fft.rfft2(y), otf.real.square() + otf.imag.square()
    gradient_power = _gradient_power(y)
    x, weight, rows = y.clone(), weight.double(), torch.arange(len(y), device=y.device)
    while bool((going := weight[rows] < last_weight[rows]).any()):
        rows = rows[going]
        across, down = differences(x[rows])
        energy = (across.square() + down.square()).sum(1, keepdim=True)
        b = weight[rows]
        weak = energy < per_sample(penalty.double()[rows] / b, y)
        right = torch.fft.rfft2(adjoint_of_differences(across.masked_fill(weak, 0), down.masked_fill(weak, 0)))
        right[..., 0, 0] = 0  # as it is but for rounding, which a large weight would enlarge
        spectrum = (data[rows] + per_sample(b, y) * right) / (power[rows] + per_sample(b, y) * gradient_power)
        x[rows] = torch.fft.irfft2(spectrum, s=size)
        weight = weight * growth.double()
    return x


def differences(image: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the next pixel on the right and to the next one below; both wrap around."""
    return image - image.roll(-1, -1), image - image.roll(-1, -2)


def adjoint_of_differences(across: Tensor, down: Tensor) -> Tensor:
    """D^T, the adjoint of `differences`."""
    return across - across.roll(1, -1) + down - down.roll(1, -2)


def _gradient_power(like: Tensor) -> Tensor:
    """|F D|^2 (H, W // 2 + 1): the squared transfer functions of both differences, added."""
    height, width = like.shape[-2:]
    down, across = (
        2 - 2 * torch.cos(2 * torch.pi * torch.arange(count, dtype=torch.float64, device=like.device) / length)
        for count, length in ((height, height), (width // 2 + 1, width))
    )
    return (down[:, None] + across).to(like.dtype)
