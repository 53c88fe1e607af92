"""Kernel estimation from gradients: deconvolution with few edges, and the kernel that the edges give."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import per_sample
from .fourier import kernel_to_otf, padded_side

__all__ = ["gradient_lags", "kernel_from_lags", "l0_deconvolution"]


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


def gradient_lags(
    x: Tensor, y_hat: Tensor, mask: Tensor, whitening: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """Normal equations of the kernel k that maps the masked gradients of x to those of y (Cho and Lee, 2009).

    With the differences d across and down, sum_d ||W (k * m d x - d y)||^2 depends on x only through the
    correlations

        lags = F^-1[W^2 sum_d |F(m d x)|^2],   cross = F^-1[W^2 sum_d conj(F(m d x)) F(d y)]

    at lags below K, W^2 = 1 / (1 + w |F D|^2). As F(d y) is the transfer function of d times F y, the gradients
    of y are never formed.

    Args:
        x: (B, C, H, W); channels are added.
        y_hat: (B, C, H, W // 2 + 1) complex, F y.
        mask: (1 or B, 1, H, W), the m.
        whitening: (B,), the w, not negative.
        kernel_size: K, at most min(H, W).

    Returns:
        lags (B, 1, 2 K - 1, 2 K - 1) and cross (B, 1, K, K), lag zero in the middle, at K - 1 and K // 2. In an
        image of fewer pixels than there are lags they repeat.
    """
    if x.numel() == 0:  # MKL refuses an empty batch
        side = 2 * kernel_size - 1
        return x.new_zeros(len(x), 1, side, side), x.new_zeros(len(x), 1, kernel_size, kernel_size)
    power, divergence = torch.zeros((), dtype=x.dtype, device=x.device), torch.zeros_like(y_hat)
    for gradient, transfer in zip(differences(x), _transfer_of_differences(x), strict=True):
        spectrum = torch.fft.rfft2(mask * gradient)
        power = power + (spectrum.real.square() + spectrum.imag.square()).sum(1, keepdim=True)
        divergence = divergence + transfer.conj() * spectrum
    cross = (divergence.conj() * y_hat).sum(1, keepdim=True)
    gain = 1 / (1 + per_sample(whitening, x) * _gradient_power(x))
    return _lags(power * gain, x, 2 * kernel_size - 1), _lags(cross * gain, x, kernel_size)


def kernel_from_lags(
    lags: Tensor,
    cross: Tensor,
    weight: Tensor,
    start: Tensor,
    nonnegative: bool,
    tolerance: float,
    iterations: int,
) -> Tensor:
    """argmin_k k^T A k / 2 - b^T k + a ||k||^2 / 2, over k >= 0 or over all k, by conjugate gradients.

    The entries of A are those of `lags` at the distance of two pixels, b is `cross`, as `gradient_lags` returns
    them. The steps run along conjugate directions, made of the gradient of those values that are positive or
    would become so (the active-set method of Polyak, 1969). A step that leaves k >= 0 is projected, and the
    directions start again (the expansion by a projected step of Kruzik et al., 2020, for the method MPRGP of
    Dostal and Schoeberl, 2005).

    Args:
        lags: (B, 1, 2 K - 1, 2 K - 1), even, lag zero in the middle.
        cross: (B, 1, K, K), the b.
        weight: (B,), the a, not negative.
        start: (B, 1, K, K).
        nonnegative: whether k >= 0.
        tolerance: it ends when the norm of that gradient is at most this share of the norm of b.
        iterations: maximum; one that is projected applies A twice.

    Returns:
        (B, 1, K, K).
    """
    if start.numel() == 0:
        return start.clone()
    size, side, a = start.shape[-1], padded_side(start.shape[-1], start.device), per_sample(weight, start)
    padded = F.pad(lags, (0, side - 2 * size + 1) * 2).roll((1 - size, 1 - size), (-2, -1))
    eigenvalues = torch.fft.rfft2(padded).real  # of A on the grid, where it is exact for lags below K

    def apply(kernel: Tensor) -> Tensor:
        product = torch.fft.irfft2(eigenvalues * torch.fft.rfft2(kernel, s=(side, side)), s=(side, side))
        return product[..., :size, :size] + a * kernel

    def reduced(kernel: Tensor, gradient: Tensor) -> Tensor:
        return torch.where((kernel > 0) | (gradient < 0), gradient, 0) if nonnegative else gradient

    kernel = start.clamp_min(0) if nonnegative else start.clone()
    gradient = apply(kernel) - cross
    direction = left = reduced(kernel, gradient)
    allowed = tolerance**2 * _dot(cross, cross)
    for _ in range(iterations):
        image = apply(direction)
        curvature = _dot(direction, image)
        going = (_dot(left, left) > allowed) & (curvature > 0)
        if not bool(going.any()):
            break
        length = torch.where(going, _dot(gradient, direction) / curvature, 0)
        moved = kernel - length * direction
        outside = going & nonnegative & (moved < 0).any(-1, True).any(-2, True)
        kernel = torch.where(outside, moved.clamp_min(0), torch.where(going, moved, kernel))
        again = apply(kernel) - cross if bool(outside.any()) else gradient
        gradient = torch.where(outside, again, torch.where(going, gradient - length * image, gradient))
        left = reduced(kernel, gradient)
        conjugate = left - _dot(left, image) / curvature * direction
        direction = torch.where(outside, left, torch.where(going, conjugate, direction))
    return kernel


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


def _transfer_of_differences(like: Tensor) -> tuple[Tensor, Tensor]:
    """Transfer functions of `differences`, (W // 2 + 1) and (H, 1), complex."""
    height, width = like.shape[-2:]
    across, down = (
        1 - torch.polar(torch.ones_like(angle), angle)
        for angle in (
            2 * torch.pi * torch.arange(count, dtype=torch.float64, device=like.device) / length
            for count, length in ((width // 2 + 1, width), (height, height))
        )
    )
    dtype = torch.complex128 if like.dtype == torch.float64 else torch.complex64
    return across.to(dtype), down[:, None].to(dtype)


def _lags(spectrum: Tensor, like: Tensor, count: int) -> Tensor:
    """The middle `count` x `count` lags of a correlation with this half spectrum, modulo the image's size."""
    height, width = like.shape[-2:]
    index = torch.arange(count, device=like.device) - count // 2
    return torch.fft.irfft2(spectrum, s=(height, width))[..., (index % height)[:, None], index % width]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (B, 1, 1, 1) of kernels."""
    return (a * b).sum((-2, -1), keepdim=True)
