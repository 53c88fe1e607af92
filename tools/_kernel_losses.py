"""What a wrong blur kernel costs a picture, and the shift that must be undone before kernels are compared."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_VARIANCE = 0.05  # of photographs in [0, 1]
_LARGEST_SCALE = 256  # pixels; below their frequency the spectrum of photographs is taken to be flat
MODEL_ERROR = 0.004  # standard deviation, in units of [0, 1], that a restoration expects besides the noise
_STEPS = 4  # sub-pixel positions per pixel


def shifted_to(truth: Tensor, estimate: Tensor) -> Tensor:
    """True kernels (B, 1, K, K) at the shift of quarter pixels at which they correlate most with the estimates.

    Image and kernel share a shift that no measurement determines, and an error that nobody sees must not count.
    """
    size = truth.shape[-1]
    side = 2 * size
    spectra = [torch.fft.fft2(F.pad(one, (0, size, 0, size))) for one in (truth, estimate)]
    product = spectra[1] * spectra[0].conj()
    finer = product.new_zeros(len(truth), 1, _STEPS * side, _STEPS * side)
    for rows in (slice(0, size), slice(-size, None)):
        for columns in (slice(0, size), slice(-size, None)):
            finer[..., rows, columns] = product[..., rows, columns]
    best = torch.fft.ifft2(finer).real.flatten(1).argmax(1)
    shifts = [(n + side * _STEPS // 2) % (side * _STEPS) - side * _STEPS // 2 for n in _unravelled(best, side)]
    frequencies = torch.fft.fftfreq(side, device=truth.device)
    down, right = (shift.view(-1, 1, 1, 1) / _STEPS for shift in shifts)
    phase = torch.exp(-2j * math.pi * (frequencies[:, None] * down + frequencies * right))
    moved = torch.fft.ifft2(spectra[0] * phase).real[..., :size, :size].clamp_min(0)
    return moved / moved.sum((-2, -1), keepdim=True).clamp_min(1e-6)


def _unravelled(index: Tensor, side: int) -> tuple[Tensor, Tensor]:
    return index // (_STEPS * side), index % (_STEPS * side)


def decibels_lost(estimate: Tensor, truth: Tensor, sigma: Tensor) -> Tensor:
    """PSNR (B,) that a Wiener filter with estimated kernels loses against the same filter with the true ones.

    With the spectrum S of photographs, which falls as 1 / |f|^2, noise of variance v and the filter W of the
    estimate, the expected squared error is sum_f S |1 - W K|^2 + v |W|^2.

    Args:
        estimate: (B, 1, K, K), sum 1.
        truth: (B, 1, K, K), sum 1, see `shifted_to`.
        sigma: (B,) standard deviation of the noise, in units of [-1, 1].
    """
    size = truth.shape[-1]
    side = size + size // 2
    side += side % 2
    rows = torch.fft.fftfreq(side, device=truth.device)[:, None]
    columns = torch.fft.rfftfreq(side, device=truth.device)
    spectrum = 1 / (rows.square() + columns.square()).clamp_min(_LARGEST_SCALE**-2)
    spectrum = _VARIANCE * spectrum / spectrum.mean()
    half = torch.full_like(columns, 2.0)
    half[0] = half[-1] = 1.0  # the frequencies that the half plane has once
    variance = (sigma.view(-1, 1, 1) / 2).square() + MODEL_ERROR**2
    transforms = [torch.fft.rfft2(one[:, 0], s=(side, side)) for one in (estimate, truth)]
    filters = [one.conj() / (one.abs().square() + variance / spectrum) for one in transforms]
    losses = ((1 - one * transforms[1]).abs().square() for one in filters)
    errors = [
        (half * (spectrum * loss + variance * one.abs().square())).sum((1, 2))
        for loss, one in zip(losses, filters, strict=True)
    ]
    return 10 * torch.log10(errors[0] / errors[1])
