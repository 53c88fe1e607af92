"""The choice between several restorations of one image, and the mean of those that agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor

import latentdem_ext as ext

from ..operators.blur import shifted
from ..solver.passes import Candidates, join
from ..solver.state import TraceStep

_AGREEMENT = 0.85  # normalised correlation from which two kernels are taken for two estimates of one
_PIECES = 0.05  # of the logarithm of a kernel's connectedness, beside the evidence
_RESOLUTION = 0.005  # of the evidence: what differs by less may be equally good


def choose(candidates: Candidates, sigma: Tensor, keep: int) -> Tensor:
    """Indices (B * keep,) of the hypotheses to continue with, the best of each image first, by their kernels.

    Three kinds of failure have to be distinguished from the truth. The no-blur solution explains everything,
    noise too, and has the most concentrated kernel, the one with the most energy (sum of squares). A diverged
    hypothesis has a diffuse kernel and a residual well above sigma. And ghosts of the image give kernels in
    several pieces, while a camera moves continuously, so that a true kernel is connected. The least energy *
    max(1, residual / sigma)^5 / connectedness^2 avoids all three; the powers were chosen on photographs.

    Args:
        candidates: N = B * H hypotheses, those of one image next to each other.
        sigma: (B,) standard deviation of the noise.
        keep: how many of the H.
    """
    images = len(sigma)
    energy = candidates.parameters.square().sum((1, 2, 3)).view(images, -1)
    excess = (candidates.residual.view(images, -1) / sigma[:, None]).clamp_min(1)
    whole = _connectedness(candidates.parameters).view(images, -1)
    # A residual that is not finite loses.
    return _first((energy * excess**5 / whole**2).nan_to_num(nan=torch.inf), keep)


def plausibility(candidates: Candidates) -> Tensor:
    """Plausibility (N,) of kernels after a trial: their evidence, and whether they are in one piece.

    The evidence (`most_likely`) is the likelihood of the measurement given the image that the prior makes of it
    with a kernel. Neither with a wrong kernel nor with the no-blur kernel does an image of the prior explain
    the measurement. The evidence does not distinguish good kernels from very good ones.
    """
    score = candidates.evidence + _PIECES * _connectedness(candidates.parameters).clamp_min(1e-6).log()
    return score.nan_to_num(nan=-torch.inf)


def most_plausible(score: Tensor, keep: int) -> Tensor:
    """Indices (B * keep,) of the hypotheses with the greatest `score` (B, H), the best of each image first.

    A score that is not a number loses.
    """
    return _first(-score.nan_to_num(nan=-torch.inf), keep)


def _first(cost: Tensor, keep: int) -> Tensor:
    """Indices (B * keep,) of the least entries in every row of `cost` (B, H)."""
    best = cost.argsort(1)[:, :keep]
    return (best + torch.arange(len(cost), device=best.device)[:, None] * cost.shape[1]).flatten()


def together(first: Candidates, second: Candidates, images: int) -> Candidates:
    """The hypotheses of two rounds, those of one image next to each other.

    In the trace, the hypotheses of the first round stay as they are during the second.

    Args:
        first: candidates of B images.
        second: candidates of the same images; its trace begins with as many steps as that of `first` has.
        images: B.
    """
    last = first.trace[-1]
    later = second.trace[len(first.trace) :]
    waiting = [TraceStep(step.stage, step.t, last.residual, last.parameters) for step in later]
    both = join([replace(first, trace=first.trace + waiting), second])
    index = torch.arange(len(both.residual), device=both.residual.device).split(
        [len(first.residual), len(second.residual)]
    )
    return both.pick(torch.cat([part.view(images, -1) for part in index], 1).flatten())


def with_turned(candidates: Candidates, images: int) -> tuple[Candidates, Tensor]:
    """The candidates preceded by copies with kernels turned by 180 degrees, and which are turned (2 N,).

    A kernel and its turned copy have the same power spectrum, and a search may end at either. The residual
    does not distinguish them, but the image that the prior makes of the measurement does.
    """
    index = torch.arange(len(candidates.residual), device=candidates.residual.device).view(images, -1)
    turned = torch.cat([torch.ones_like(index), torch.zeros_like(index)], dim=1).flatten().bool()
    twice = candidates.pick(index.repeat(1, 2).flatten())
    kernels = torch.where(turned[:, None, None, None], twice.parameters.flip(-2, -1), twice.parameters)
    return replace(twice, parameters=kernels), turned


def _connectedness(kernel: Tensor) -> Tensor:
    return torch.tensor([connectedness(one) for one in kernel]).to(kernel)


def connectedness(kernel: Tensor) -> float:
    """Share of the mass of a kernel (1, K, K) in the largest connected part of what exceeds 5 % of its peak.

    Pixels are connected to their eight neighbours. A kernel that is not finite has 0.
    """
    values = kernel[0].double().cpu().numpy()
    parts = label(values > 0.05 * values.max(), connectivity=2)
    masses = np.bincount(parts.ravel(), weights=values.ravel())[1:]
    return float(masses.max() / values.sum()) if len(masses) else 0.0


def correlations(reference: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Greatest normalised correlation (B, H) of kernels over all shifts, and the flat index of the shift.

    Args:
        reference: (B, 1, K, K).
        others: (B, H, K, K).
    """
    side = 2 * reference.shape[-1]  # room for every shift without wrapping
    product = torch.fft.rfft2(reference, s=(side, side)) * torch.fft.rfft2(others, s=(side, side)).conj()
    overlap, place = torch.fft.irfft2(product, s=(side, side)).flatten(2).max(2)
    return overlap / (reference.flatten(2).norm(dim=2) * others.flatten(2).norm(dim=2)), place


def merged_kernels(
    kernel: Tensor, score: Tensor, best: Tensor, latest: int, agreement: float = _AGREEMENT
) -> Tensor:
    """The best kernels, averaged with those of the last round that agree with them, (B, 1, K, K).

    Candidates near the truth are estimates with errors of their own, which the mean reduces; the others
    agree neither with them nor, as a rule, with each other. Kernels are shifted to where they correlate the
    most with the best one. They agree if the normalised correlation there is at least `agreement`, and a
    kernel has the less weight the less plausible it is.

    Args:
        kernel: (B * H, 1, K, K), those of one image next to each other, those of the last round at their end.
        score: (B, H) plausibility.
        best: (B,) index of the best of each image.
        latest: how many of the H belong to the last round.
        agreement: least normalised correlation of kernels that are averaged.
    """
    images, size = len(score), kernel.shape[-1]
    side = 2 * size
    reference, others = kernel[best], kernel.view(images, -1, size, size)[:, -latest:]
    correlation, place = correlations(reference, others)
    shifts = torch.stack([place // side, place % side], -1)
    shifts = torch.where(shifts < size, shifts, shifts - side)
    moved = [
        shifted(one[None], *shift)[0]
        for one, shift in zip(others.flatten(0, 1), shifts.flatten(0, 1).tolist(), strict=True)
    ]
    lead = score.flatten()[best][:, None] - score[:, -latest:]
    itself = torch.arange(len(kernel), device=best.device).view(images, -1)[:, -latest:] == best[:, None]
    counts = (correlation >= agreement) & lead.isfinite() & ~itself
    weight = torch.where(counts, (-lead / _RESOLUTION).exp(), torch.zeros_like(lead))
    mean = reference + (weight[..., None, None] * torch.stack(moved).view_as(others)).sum(1, keepdim=True)
    return ext.project_kernel(mean)
