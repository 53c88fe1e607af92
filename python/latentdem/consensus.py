"""Which of several restorations of one image to believe, and what they say together."""

from __future__ import annotations

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor

import latentdem_ext as ext

from .operators.blur import shifted
from .stages import Candidates

_AGREEMENT = 0.85  # normalised correlation from which two kernels are taken for two estimates of one


def choose(candidates: Candidates, sigma: Tensor, keep: int) -> Tensor:
    """Indices (B * keep,) of the hypotheses to go on with, the best of each image first.

    Three kinds of failure have to be told from the truth. The no-blur solution explains everything, noise too,
    and has the most concentrated kernel, the one with the most energy (sum of squares). Divergence has a
    diffuse kernel and a residual well above sigma. And ghosts of the image give kernels in several pieces,
    while a camera moves continuously, so that a kernel is connected. The least energy *
    max(1, residual / sigma)^5 / connectedness^2 is none of them; the powers were chosen on photographs.

    Args:
        candidates: N = B * H hypotheses, those of one image together.
        sigma: (B,) standard deviation of the noise.
        keep: how many of the H.
    """
    images = len(sigma)
    energy = candidates.parameters.square().sum((1, 2, 3)).view(images, -1)
    excess = (candidates.residual.view(images, -1) / sigma[:, None]).clamp_min(1)
    whole = (
        torch.tensor([connectedness(kernel) for kernel in candidates.parameters]).to(energy).view(images, -1)
    )
    # A residual that is not finite has lost.
    score = torch.nan_to_num(energy * excess**5 / whole**2, nan=torch.inf)
    best = score.argsort(1)[:, :keep]
    first = torch.arange(images, device=best.device)[:, None] * score.shape[1]
    return (best + first).flatten()


def connectedness(kernel: Tensor) -> float:
    """Share of the mass of a kernel (1, K, K) in the largest connected part of what exceeds 5 % of its peak.

    Pixels are connected to their eight neighbours. A kernel that is not finite has 0.
    """
    values = kernel[0].double().cpu().numpy()
    parts = label(values > 0.05 * values.max(), connectivity=2)
    masses = np.bincount(parts.ravel(), weights=values.ravel())[1:]
    return float(masses.max() / values.sum()) if len(masses) else 0.0


def merged_kernels(candidates: Candidates, best: Tensor) -> Tensor:
    """The best candidate's kernel, averaged with those of its image that agree with it, (B, 1, K, K).

    Candidates that found the truth are estimates with errors of their own, which the mean reduces; the others
    agree neither with them nor, as a rule, with each other. Kernels are shifted to where they correlate the
    most with the best one; they agree if the normalised correlation is at least 0.85 there.

    Args:
        candidates: N = B * H hypotheses, those of one image together.
        best: (B,) index of the best of each image.
    """
    kernel = candidates.parameters
    images, size = len(best), kernel.shape[-1]
    side = 2 * size  # room for every shift without wrapping
    reference = kernel[best].repeat_interleave(len(kernel) // images, 0)
    product = torch.fft.rfft2(reference, s=(side, side)) * torch.fft.rfft2(kernel, s=(side, side)).conj()
    overlap, place = torch.fft.irfft2(product, s=(side, side)).flatten(1).max(1)
    norms = reference.square().sum((1, 2, 3)).sqrt() * kernel.square().sum((1, 2, 3)).sqrt()
    shifts = torch.stack([place // side, place % side], 1)
    shifts = torch.where(shifts < size, shifts, shifts - side)
    moved = torch.stack([shifted(one, *shift) for one, shift in zip(kernel, shifts.tolist(), strict=True)])
    agrees = (overlap >= _AGREEMENT * norms).to(kernel.dtype).view(-1, 1, 1, 1)
    return ext.project_kernel((agrees * moved).unflatten(0, (images, -1)).sum(1))
