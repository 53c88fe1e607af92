"""Image quality at the best sub-pixel shift, as benchmarks of blind deconvolution measure it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..metrics import SSIM_WINDOW, psnr, ssim

_STEPS = 4  # sub-pixel positions per pixel


@dataclass(frozen=True)
class AlignedScore:
    """Quality after moving the image by `shift` pixels (down, right); PSNR in dB."""

    psnr: float
    ssim: float
    shift: tuple[float, float]


def score_aligned(image: Tensor, reference: Tensor, radius: int = 5, border: int = 15) -> AlignedScore:
    """PSNR and SSIM at the shift of quarter pixels that maximises the PSNR.

    All whole-pixel shifts are compared first, and then all quarter-pixel ones within a pixel of the best, with
    bilinear interpolation. This is the protocol of Levin et al. (2009), who could not know where an estimated
    kernel is centred. The mean squared error of a weighted sum of neighbouring shifts, weights w, is
    w^T G w - 2 w^T c + |r|^2 with the Gram matrix G of the shifted images and their products c with the
    reference r.

    Args:
        image: (C, H, W) or (1, C, H, W) in [-1, 1], compared after clipping, in [0, 1].
        reference: image of the same shape.
        radius: largest whole-pixel shift in each direction.
        border: pixels left out at every edge, more than `radius`.

    Raises:
        UserError: the images are too small for the border, or of different shapes.
    """
    if image.shape[-3:] != reference.shape[-3:]:
        raise UserError(
            f"The images compared are {_size(image)} and {_size(reference)}; both must be the same."
        )
    height, width = reference.shape[-2:]
    if min(height, width) < 2 * border + SSIM_WINDOW:
        raise UserError(
            f"The image is {_size(reference)}; too little is left without a border of {border} pixels."
        )
    x, r = (_unit(t) for t in (image, reference))
    inner = r[:, border : height - border, border : width - border]
    down, right = _best_offset(x, r, radius, border)
    neighbours = [(down + dy, right + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
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
    best = int(error.argmin())
    moved = (weights[best] @ shifted).reshape(inner.shape)
    offset = (down + float(positions[best // len(positions)]), right + float(positions[best % len(positions)]))
    images = (2 * moved - 1, 2 * inner - 1)
    return AlignedScore(psnr(*images), ssim(*images), (-offset[0], -offset[1]))


def _best_offset(x: Tensor, r: Tensor, radius: int, border: int) -> tuple[int, int]:
    """The whole-pixel d with the smallest sum of m[n] (r[n] - x[n + d])^2, m being 1 inside the border."""
    size = x.shape[-2:]
    mask = torch.zeros_like(r[:1])
    mask[:, border : size[0] - border, border : size[1] - border] = 1
    energy = torch.fft.rfft2(mask).conj() * torch.fft.rfft2(x**2)
    product = torch.fft.rfft2(mask * r).conj() * torch.fft.rfft2(x)
    error = torch.fft.irfft2((energy - 2 * product).sum(0), s=size).roll((radius, radius), (0, 1))
    best = int(error[: 2 * radius + 1, : 2 * radius + 1].argmin())
    return best // (2 * radius + 1) - radius, best % (2 * radius + 1) - radius


def _unit(image: Tensor) -> Tensor:
    """Image as (C, H, W) float64 in [0, 1]."""
    return ((image.detach().reshape(image.shape[-3:]).cpu().double() + 1) / 2).clamp(0, 1)


def _size(image: Tensor) -> str:
    channels, height, width = image.shape[-3:]
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"
