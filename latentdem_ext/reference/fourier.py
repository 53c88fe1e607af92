"""Blur, its data fidelity and the kernel update: everything that works in the Fourier domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import per_sample

__all__ = [
    "Fidelity",
    "HQSFactors",
    "blur",
    "blur_adjoint",
    "blur_fidelity",
    "blur_kernel_gradient",
    "blur_proximal",
    "fast_length",
    "hqs_kernel_update",
    "hqs_prepare",
    "hqs_prepare_on_grid",
    "kernel_to_otf",
    "padded_side",
    "project_kernel",
]


class Fidelity(NamedTuple):
    """Data fidelity of an image: see `blur_fidelity`."""

    norm2: Tensor
    gradient: Tensor
    glued: Tensor


class HQSFactors(NamedTuple):
    """The image and the measurement as a kernel update needs them: see `hqs_prepare`."""

    data_term: Tensor
    filter: Tensor


def kernel_to_otf(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """Transfer function F k: the kernel zero-padded to `shape` with its origin moved to (0, 0), transformed.

    Args:
        kernel: (B, 1, K, K), K at most min(H, W).
        shape: (H, W) of the image.

    Returns:
        (B, 1, H, W // 2 + 1) complex, the half spectrum of a real transform.
    """
    height, width = shape
    size = kernel.shape[-1]
    padded = F.pad(kernel, (0, width - size, 0, height - size))
    return _forward(padded.roll((-(size // 2), -(size // 2)), dims=(-2, -1)))


def _forward(image: Tensor) -> Tensor:
    if image.numel() == 0:  # MKL refuses an empty batch
        dtype = torch.complex128 if image.dtype == torch.float64 else torch.complex64
        return image.new_empty((*image.shape[:-1], image.shape[-1] // 2 + 1), dtype=dtype)
    # Contiguous: PyTorch 2.6 fails on an expanded tensor, which the gradient of a sum is.
    return torch.fft.rfft2(image.contiguous())


def _inverse(spectrum: Tensor, shape: Sequence[int]) -> Tensor:
    if spectrum.numel() == 0:
        return spectrum.real.new_empty((*spectrum.shape[:-2], *shape[-2:]))
    return torch.fft.irfft2(spectrum, s=tuple(shape[-2:]))


def _conj(spectrum: Tensor) -> Tensor:
    # Not lazy as Tensor.conj() is: torch.compile calls a registered operation with lazy conjugation switched
    # off, and the values would not be conjugated.
    return torch.conj_physical(spectrum)


def _column_weights(width: int, like: Tensor) -> Tensor:
    """How often each column of a half spectrum occurs in the whole one: 2, but 1 for zero and for Nyquist."""
    weights = torch.full((width // 2 + 1,), 2.0, dtype=like.dtype, device=like.device)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return weights


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """k * x: (k * x)[n] = sum_m k[m] x[n - (m - K // 2)], indices of x modulo (H, W).

    Args:
        x: (B, C, H, W).
        kernel: (B, 1, K, K).

    Returns:
        (B, C, H, W).
    """
    return _inverse(kernel_to_otf(kernel, (x.shape[-2], x.shape[-1])) * _forward(x), x.shape)


def blur_adjoint(y: Tensor, kernel: Tensor) -> Tensor:
    """Adjoint of `blur` in its first argument: F^-1[conj(F k) F y], circular correlation with the kernel.

    Args:
        y: (B, C, H, W).
        kernel: (B, 1, K, K).

    Returns:
        (B, C, H, W).
    """
    return _inverse(_conj(kernel_to_otf(kernel, (y.shape[-2], y.shape[-1]))) * _forward(y), y.shape)


def blur_kernel_gradient(x: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    """Adjoint of `blur` in its second argument: crop F^-1[conj(F x) F gradient], summed over the channels.

    Args:
        x: (B, C, H, W).
        gradient: (B, C, H, W), the gradient in the blurred image.
        kernel_size: K, at most min(H, W).

    Returns:
        (B, 1, K, K).
    """
    product = (_conj(_forward(x)) * _forward(gradient)).sum(dim=1, keepdim=True)
    return crop(_inverse(product, x.shape), kernel_size)


def crop(image: Tensor, kernel_size: int) -> Tensor:
    """The K x K window around pixel (0, 0) of an image, whose own origin is at K // 2."""
    height, width = image.shape[-2:]
    support = torch.arange(kernel_size, device=image.device) - kernel_size // 2
    return image[..., (support % height)[:, None], support % width]


def blur_fidelity(x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None = None) -> Fidelity:
    """Squared residual, its gradient in x and the gluing target, from one transform of x and one back.

    With R = F y - F k F x and c = F^-1[conj(F k) R], the adjoint blur of the residual:
    norm2 = ||y - k*x||^2 (by Parseval the mean over frequencies of |R|^2), gradient = -2 c,
    glued = x + c = A^T y + (I - A^T A) x, the argument of the encoder in the gluing term of PSLD
    (LatentDEM, Algorithm 1; Rout et al. 2023).

    Args:
        x: (B, C, H, W).
        kernel: (B, 1, K, K).
        y: (B, C, H, W).
        y_hat: (B, C, H, W // 2 + 1), torch.fft.rfft2(y) where the caller keeps it between steps.

    Returns:
        norm2 (B,), gradient (B, C, H, W), glued (B, C, H, W).
    """
    height, width = x.shape[-2:]
    otf = kernel_to_otf(kernel, (height, width))
    residual = (_forward(y) if y_hat is None else y_hat) - otf * _forward(x)
    power = (residual.real.square() + residual.imag.square()) * _column_weights(width, x)
    correction = _inverse(_conj(otf) * residual, x.shape)
    return Fidelity(power.sum(dim=(1, 2, 3)) / (height * width), -2.0 * correction, x + correction)


def blur_proximal(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, y_hat: Tensor | None = None) -> Tensor:
    """argmin_x ||y - k*x||^2 + rho ||x - x0||^2 = x0 + F^-1[conj(F k) (F y - F k F x0) / (|F k|^2 + rho)].

    Args:
        x0: (B, C, H, W).
        kernel: (B, 1, K, K).
        y: (B, C, H, W).
        rho: (B,), positive.
        y_hat: (B, C, H, W // 2 + 1), torch.fft.rfft2(y) where the caller keeps it between steps.

    Returns:
        (B, C, H, W).
    """
    otf = kernel_to_otf(kernel, (x0.shape[-2], x0.shape[-1]))
    residual = (_forward(y) if y_hat is None else y_hat) - otf * _forward(x0)
    gain = _conj(otf) / (otf.real.square() + otf.imag.square() + per_sample(rho, x0))
    return x0 + _inverse(gain * residual, x0.shape)


def padded_side(kernel_size: int, device: torch.device) -> int:
    """Points a side of the padded grid of `hqs_prepare`: even, at least 2K - 1, with a fast transform.

    The smallest without a prime factor above 5; on a CUDA device, where the grid can be kept in the
    shared memory of a block, a power of two from 32 to 128 where one is large enough.
    """
    minimum = 2 * kernel_size - 1
    if device.type == "cuda" and minimum <= 128:
        return max(32, 1 << (minimum - 1).bit_length())
    return fast_length(minimum)


def fast_length(minimum: int) -> int:
    """The smallest even number from `minimum` on without a prime factor above 5: its transform is fast."""
    size = minimum + minimum % 2
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2


def hqs_prepare(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    kernel_size: int,
    per_channel: bool = False,
    y_hat: Tensor | None = None,
) -> HQSFactors:
    """Reduce the least-squares half of an M-step (LatentDEM Eq. 17-19) to the lags a K x K kernel can reach.

    The step is Z = crop F^-1[ (sum_j conj(F x_j) F y_j + a F k) / (sum_j |F x_j|^2 + a) ], j over samples and
    channels. N, D being the two sums, Z = crop F^-1[N / (D + a)] + crop(g * k) with g = F^-1[a / (D + a)]. Only
    the lags |l| < K of g reach the crop, so g is copied (modulo H, W: exact for images smaller than 2K - 1 too)
    to a padded grid of M >= 2K - 1 points a side, on which every later update is one product.

    Args:
        x: (B, S, C, H, W), S posterior samples.
        y: (B, C, H, W).
        weight: (B,), the a above, positive. It is compared with sum_j |F x_j|^2 of the unnormalised DFT, images
            in [-1, 1]: the paper's delta sigma^2 with delta = 5e6.
        kernel_size: K, at most min(H, W).
        per_channel: solve for each channel alone and average the solutions (as FastDiffusionEM does) instead of
            the joint least squares over the channels.
        y_hat: (B, C, H, W // 2 + 1), torch.fft.rfft2(y) where the caller keeps it between steps.

    Returns:
        data_term (B, 1, K, K), the crop of F^-1[N / (D + a)]; filter (B, 1, M, M // 2 + 1), real, the transform
        of g on the padded grid.
    """
    side = padded_side(kernel_size, x.device)
    return hqs_prepare_on_grid(x, y, weight, kernel_size, per_channel, y_hat, side)


def hqs_prepare_on_grid(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    kernel_size: int,
    per_channel: bool,
    y_hat: Tensor | None,
    side: int,
) -> HQSFactors:
    """`hqs_prepare` with a padded grid of `side` points a side, at least 2K - 1 and even."""
    height, width = x.shape[-2:]
    x_hat = _forward(x)
    numerator = _conj(x_hat.sum(dim=1)) * (_forward(y) if y_hat is None else y_hat)
    power = (x_hat.real.square() + x_hat.imag.square()).sum(dim=1)
    if not per_channel:
        numerator, power = numerator.sum(dim=1, keepdim=True), power.sum(dim=1, keepdim=True)
    a = per_sample(weight, y)
    solution = _inverse(numerator / (power + a), y.shape).mean(dim=1, keepdim=True)
    response = _inverse((a / (power + a)).mean(dim=1, keepdim=True).to(x_hat.dtype), y.shape)

    lags = torch.arange(1 - kernel_size, kernel_size, device=x.device)
    small = response.new_zeros(*response.shape[:2], side, side)
    small[..., (lags % side)[:, None], lags % side] = response[..., (lags % height)[:, None], lags % width]
    # D is even under l -> -l, hence so is g, on either grid: the imaginary part is rounding error.
    return HQSFactors(crop(solution, kernel_size), _forward(small).real.contiguous())


def hqs_kernel_update(kernel: Tensor, factors: HQSFactors, project: bool = True, iterations: int = 1) -> Tensor:
    """Z = Z_data + crop(g * k), the least-squares half of an HQS iteration (see `hqs_prepare`).

    Args:
        kernel: (B, 1, K, K), the current kernel.
        factors: what `hqs_prepare` returned for this image and K.
        project: pass Z through `project_kernel`.
        iterations: how often, each time from the last result; at least 1.

    Returns:
        (B, 1, K, K).
    """
    size, side = kernel.shape[-1], factors.filter.shape[-2]
    for _ in range(iterations):
        spectrum = _forward(F.pad(kernel, (0, side - size, 0, side - size)))
        response = _inverse(spectrum * factors.filter, (side, side))
        kernel = factors.data_term + response[..., :size, :size]
        kernel = project_kernel(kernel) if project else kernel
    return kernel


def project_kernel(kernel: Tensor) -> Tensor:
    """Clip to non-negative values and divide by the sum; a kernel without a positive value becomes uniform.

    Uniform, because a kernel without values gives no information about the blur, while a delta would mean "no
    blur", a solution that blind deblurring does not leave again.

    Args:
        kernel: (B, 1, K, K).

    Returns:
        (B, 1, K, K), non-negative, sum 1.
    """
    clipped = kernel.clamp(min=0)
    total = clipped.sum(dim=(-2, -1), keepdim=True)
    return torch.where(total > 0, clipped / total, 1.0 / (kernel.shape[-1] * kernel.shape[-2]))
