"""Image and kernel quality as in the paper, and after aligning the shift that cannot be determined.

A blurred image determines image and kernel only up to a common shift (the image one way, the kernel the other).
So image metrics are given raw and after the best whole-pixel shift; kernels are always aligned.
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
_LPIPS_SMALLEST = 32  # AlexNet's pooling leaves nothing of smaller images


@dataclass(frozen=True)
class ImageMetrics:
    """Image quality against a reference.

    Attributes:
        psnr, ssim, lpips: over the whole frame. PSNR in dB; LPIPS is None where it is not available.
        psnr_aligned, ssim_aligned, lpips_aligned: after moving the image by `shift`, without a border of
            `radius` pixels, which pixels from beyond the frame could have entered.
        shift: whole pixels (down, right) by which the image was moved.
    """

    psnr: float
    ssim: float
    lpips: float | None
    psnr_aligned: float
    ssim_aligned: float
    lpips_aligned: float | None
    shift: tuple[int, int]


@dataclass(frozen=True)
class KernelMetrics:
    """Kernel quality against the true kernel, see `kernel_metrics`."""

    mse: float
    mnc: float


def image_metrics(image: Tensor, reference: Tensor, radius: int = 8) -> ImageMetrics:
    """PSNR, SSIM and, where installed, LPIPS, raw and after the best whole-pixel shift.

    Args:
        image: (C, H, W) or (1, C, H, W) in [-1, 1], compared after clipping, in [0, 1].
        reference: image of the same shape.
        radius: largest shift tried in each direction, less for images too small for it.
    """
    shift, radius = best_shift(image, reference, radius), _radius(reference, radius)
    height, width = reference.shape[-2:]
    inner = (..., slice(radius, height - radius), slice(radius, width - radius))
    moved = image.roll(shift, dims=(-2, -1))[inner]
    return ImageMetrics(
        psnr(image, reference),
        ssim(image, reference),
        lpips(image, reference),
        psnr(moved, reference[inner]),
        ssim(moved, reference[inner]),
        lpips(moved, reference[inner]),
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


def best_shift(image: Tensor, reference: Tensor, radius: int = 8) -> tuple[int, int]:
    """The circular whole-pixel shift (down, right) of `image` that maximises the PSNR over the interior.

    No pixel from beyond the border can enter the interior. The squared error of every shift follows from
    two correlations: sum m r^2 - 2 sum m r x(. - s) + sum m x(. - s)^2, m being 1 in the interior.

    Args:
        image: (C, H, W) or (1, C, H, W) in [-1, 1].
        reference: image of the same shape.
        radius: largest shift in each direction, less for images too small for it.
    """
    x, r = _unit(image), _unit(reference)
    radius = _radius(reference, radius)
    mask = np.zeros(r.shape[1:])
    mask[radius : r.shape[1] - radius, radius : r.shape[2] - radius] = 1
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
