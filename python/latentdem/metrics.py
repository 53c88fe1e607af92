"""Image and kernel quality as in the paper, and after aligning the shift that cannot be determined.

A blurred image determines image and kernel only up to a common shift (the image one way, the kernel the other).
The shift is no whole number of pixels: an image half a pixel off may lose 2 dB. So image metrics are given raw
and after the best shift of quarter pixels; kernels are always aligned, by whole pixels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

SSIM_WINDOW = 11  # pixels, of the Gaussian window of Wang et al. (2004)
_STEPS = 4  # sub-pixel positions per pixel
_LPIPS_SMALLEST = 32  # AlexNet's pooling leaves nothing of smaller images


@dataclass(frozen=True)
class ImageMetrics:
    """Image quality against a reference.

    Attributes:
        psnr, ssim, lpips: over the whole frame. PSNR in dB; LPIPS is None where it is not available.
        psnr_aligned, ssim_aligned, lpips_aligned: after moving the image by `shift`, without a border that
            pixels from beyond the frame could have entered.
        shift: pixels (down, right) by which the image was moved.
    """

    psnr: float
    ssim: float
    lpips: float | None
    psnr_aligned: float
    ssim_aligned: float
    lpips_aligned: float | None
    shift: tuple[float, float]


@dataclass(frozen=True)
class KernelMetrics:
    """Kernel quality against the true kernel, see `kernel_metrics`."""

    mse: float
    mnc: float


def image_metrics(image: Tensor, reference: Tensor, radius: int = 8) -> ImageMetrics:
    """PSNR, SSIM and, where installed, LPIPS, raw and after the best shift, see `best_alignment`.

    Args:
        image: (C, H, W) or (1, C, H, W) in [-1, 1], compared after clipping, in [0, 1].
        reference: image of the same shape.
        radius: largest whole-pixel shift tried in each direction, less for images too small for it.
    """
    border = _radius(reference, radius + 1)
    moved, inner, shift = best_alignment(image, reference, max(border - 1, 0), border)
    return ImageMetrics(
        psnr(image, reference),
        ssim(image, reference),
        lpips(image, reference),
        psnr(moved, inner),
        ssim(moved, inner),
        lpips(moved, inner),
        shift,
    )


def psnr(image: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1], compared as [0, 1]; infinite if equal."""
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(_unit(reference), _unit(image), data_range=1.0))


def ssim(image: Tensor, reference: Tensor) -> float:
    """Structural similarity (Wang et al., 2004: Gaussian window, sigma 1.5) of images in [-1, 1]."""
    value = structural_similarity(
        _unit(image),
        _unit(reference),
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def best_alignment(
    image: Tensor, reference: Tensor, radius: int, border: int
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """The image at the shift of quarter pixels that maximises the PSNR, the reference beside it, and the shift.

    All whole-pixel shifts are compared first, and then all quarter-pixel ones within a pixel of the best, with
    bilinear interpolation, as in the protocol of Levin et al. (2009), who could not know where an estimated
    kernel is centred. The mean squared error of a weighted sum of neighbouring shifts, weights w, is
    w^T G w - 2 w^T c + |r|^2 with the Gram matrix G of the shifted images and their products c with the
    reference r.

    Args:
        image: (C, H, W) or (1, C, H, W) in [-1, 1].
        reference: image of the same shape.
        radius: largest whole-pixel shift in each direction.
        border: pixels left out at every edge, more than `radius`; 0 allows no shift.

    Returns:
        Both (C, h, w) float64 in [-1, 1] without the border, and the shift of the image (down, right).
    """
    x, r = (torch.from_numpy(_unit(one)) for one in (image, reference))
    height, width = r.shape[-2:]
    inner = r[:, border : height - border, border : width - border]
    if border == 0:
        return 2 * x - 1, 2 * inner - 1, (0.0, 0.0)
    down, right = best_shift(image, reference, radius, border)
    neighbours = [(dy - down, dx - right) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    shifted = torch.stack(
        [
            x[:, border + a : height - border + a, border + b : width - border + b].flatten()
            for a, b in neighbours
        ]
    )
    positions = torch.arange(-_STEPS, _STEPS + 1, dtype=x.dtype) / _STEPS
    hat = (1 - (positions[:, None] - torch.arange(-1, 2)).abs()).clamp_min(0)  # (9, 3)
    weights = torch.einsum("ai,bj->abij", hat, hat).reshape(len(positions) ** 2, len(neighbours))
    error = ((weights @ (shifted @ shifted.T)) * weights).sum(1) - 2 * weights @ (shifted @ inner.flatten())
    # Of equal errors the one with the smallest shift, whatever their rounding errors.
    distance = (positions[:, None] - down).abs() + (positions[None] - right).abs()
    best = int((error.round(decimals=6) + 1e-9 * distance.flatten()).argmin())
    moved = (weights[best] @ shifted).reshape(inner.shape)
    offset = positions[best // len(positions)], positions[best % len(positions)]
    return 2 * moved - 1, 2 * inner - 1, (down - float(offset[0]), right - float(offset[1]))


def best_shift(image: Tensor, reference: Tensor, radius: int = 8, border: int | None = None) -> tuple[int, int]:
    """The circular whole-pixel shift (down, right) of `image` that maximises the PSNR over the interior.

    No pixel from beyond the border can enter the interior. The squared error of every shift follows from
    two correlations: sum m r^2 - 2 sum m r x(. - s) + sum m x(. - s)^2, m being 1 in the interior.

    Args:
        image: (C, H, W) or (1, C, H, W) in [-1, 1].
        reference: image of the same shape.
        radius: largest shift in each direction, less for images too small for it.
        border: pixels left out at every edge; None for as many as the radius.
    """
    x, r = _unit(image), _unit(reference)
    radius = _radius(reference, radius)
    border = radius if border is None else border
    mask = np.zeros(r.shape[1:])
    mask[border : r.shape[1] - border, border : r.shape[2] - border] = 1
    channels = zip(x, r, strict=True)
    error = sum(_correlate(mask, a**2) - 2 * _correlate(mask * b, a) for a, b in channels)
    shifts = [(dy, dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1)]
    # Among equal errors take the smallest shift, whatever their rounding errors.
    return min(shifts, key=lambda s: (round(error[s], 6), abs(s[0]) + abs(s[1])))


def kernel_metrics(estimate: Tensor, truth: Tensor) -> KernelMetrics:
    """Mean squared error and maximum of normalised cross-correlation (MNC), both at the best shift.

    MNC (Hu and Yang, 2012) is max_s sum_n a[n] b[n - s] / (|a| |b|), 1 for kernels equal up to a shift. The
    mean squared error is that of the kernels scaled to peak 1, over the pixels of the true kernel: with
    kernels of sum 1 it would be near 1e-6, and the figures of the paper (.009 to .017) are for peak 1.

    Args:
        estimate: (1, 1, K, K) or (K, K).
        truth: the same, of any size.
    """
    a, b = (k.detach().reshape(k.shape[-2:]).cpu().double().numpy() for k in (estimate, truth))
    side = a.shape[0] + b.shape[0]  # room for every shift without wrapping
    padded = [np.pad(k, (0, side - k.shape[0])) for k in (a, b)]
    overlap = float(_correlate(*padded).max())
    energies = float((a**2).sum()), float((b**2).sum())
    peaks = float(a.max()), float(b.max())
    squared = energies[0] / peaks[0] ** 2 + energies[1] / peaks[1] ** 2 - 2 * overlap / (peaks[0] * peaks[1])
    return KernelMetrics(
        mse=max(squared, 0.0) / b.size, mnc=min(overlap / (energies[0] * energies[1]) ** 0.5, 1.0)
    )


def lpips(image: Tensor, reference: Tensor) -> float | None:
    """LPIPS (AlexNet, version 0.1) of images in [-1, 1]; None where unavailable or below 32 x 32 pixels."""
    if not lpips_available()[0] or min(reference.shape[-2:]) < _LPIPS_SMALLEST:
        return None
    a, b = (
        t.detach().reshape(1, *t.shape[-3:]).cpu().float().clamp(-1, 1).expand(-1, 3, -1, -1)
        for t in (image, reference)
    )
    with torch.no_grad():
        return float(_lpips_network()(a, b))


def lpips_available() -> tuple[bool, str]:
    """Whether LPIPS can be computed without a download, and the place of its weights or what is missing."""
    for package in ("lpips", "torchvision"):
        if find_spec(package) is None:
            return False, f"the package {package} is not installed"
    weights = _alexnet_weights()
    if not weights.exists():
        return False, f"the AlexNet weights are not at {weights}"
    return True, f"weights at {weights}"


def _alexnet_weights() -> Path:
    from torchvision.models import AlexNet_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.IMAGENET1K_V1.url).name


@cache
def _lpips_network() -> Any:
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips asks torchvision for its weights by a deprecated name
        return lpips.LPIPS(net="alex", verbose=False).eval()


def _unit(image: Tensor) -> np.ndarray:
    """Image as (C, H, W) float64 in [0, 1]."""
    pixels = image.detach().reshape(image.shape[-3:]).cpu().double()
    return ((pixels + 1) / 2).clamp(0, 1).numpy()


def _radius(reference: Tensor, radius: int) -> int:
    """The radius, reduced where needed to leave an interior for which SSIM can be computed."""
    return max(0, min(radius, (min(reference.shape[-2:]) - SSIM_WINDOW) // 2))


def _correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """c[s] = sum_n a[n] b[n - s], circular, of (H, W) arrays; indexed by signed shifts."""
    return np.fft.irfft2(np.fft.rfft2(a) * np.fft.rfft2(b).conj(), s=a.shape)
