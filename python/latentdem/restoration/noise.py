"""The noise level of a blurred photograph, estimated from the photograph alone."""

from __future__ import annotations

import torch
from torch import Tensor

_PATCH = 5  # pixels; 25 eigenvalues tell noise from content
_BLOCK = 64  # pixels; an estimate each, large enough for the eigenvalues to be steady
_BLOCKS_PER_AXIS = 8  # bounds time and memory on large photographs
_QUANTILE = 0.1  # of the blocks' estimates: the smoothest places, without trusting a single one
_STEP = 2 / 255  # one grey level of an 8-bit image
LEAST = 5e-4  # least level that restorations are tested with


def estimate_noise_sigma(y: Tensor, mask: Tensor | None = None, step: Tensor | None = None) -> Tensor:
    """Standard deviation of white noise in blurred photographs.

    The patches of a photograph, above all of a blurred one, span few directions; noise fills all of them
    equally. The variance is therefore the mean of the small eigenvalues of the patches' covariance, namely
    of the most that have a mean no larger than their median (Chen et al., "An efficient statistical method
    for image noise level estimation", ICCV 2015). Texture raises an estimate and never lowers it, so it is
    made block by block and a low quantile taken. Patches that touch the ends of the range, where noise is
    clipped, and patches without any variation do not count.

    Args:
        y: (B, C, H, W) photographs in [-1, 1]; each side should have 32 pixels or more.
        mask: (1 or B, 1, H, W), 0 for pixels that do not count; None if all do.
        step: (B,) difference between two levels of the data; None for 8 bits.

    Returns:
        (B,) float32 on the device of `y`, in the units of [-1, 1]; at least the rounding noise of the data
        (0.0023 for 8 bits), which is part of what it measures, and `LEAST`.
    """
    least = torch.full((len(y),), _STEP) if step is None else step
    masks = [None] * len(y) if mask is None else mask.cpu().expand(len(y), -1, -1, -1)
    sigma = torch.stack([_estimate(one, counts) for one, counts in zip(y.float().cpu(), masks, strict=True)])
    return sigma.maximum((least / 12**0.5).clamp_min(LEAST)).to(y.device, torch.float32)


def _estimate(y: Tensor, mask: Tensor | None) -> Tensor:
    """Unbounded estimate () for one photograph (C, H, W) and its mask (1, H, W)."""
    side = min(_BLOCK, *y.shape[1:])
    covariances, usable = [], []
    for top in _starts(y.shape[1], side):
        for left in _starts(y.shape[2], side):
            block = slice(None), slice(top, top + side), slice(left, left + side)
            covariance, share = _covariance(y[block], None if mask is None else mask[block])
            covariances.append(covariance)
            usable.append(share)
    # Patches picked for not touching the ends of the range have too little noise where many do touch them.
    shares = torch.stack(usable)
    enough = shares >= min(0.75, float(shares.max()))
    return _noise_variance(torch.stack(covariances)[enough]).sqrt().quantile(_QUANTILE)


def _starts(length: int, side: int) -> list[int]:
    """First pixels of evenly spread blocks of `side` pixels that cover `length` pixels, up to a number."""
    count = min(_BLOCKS_PER_AXIS, -(-length // side))
    return torch.linspace(0, length - side, count).round().int().tolist()


def _covariance(block: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Covariance (25, 25) of the usable patches of a block (C, h, w), and their share () of all."""
    centre = block.mean()  # taken off, so that float32 is precise enough for sums over patches
    patches = (block - centre).unfold(1, _PATCH, 1).unfold(2, _PATCH, 1)
    patches = patches.permute(3, 4, 0, 1, 2).reshape(_PATCH**2, -1)
    low, high = patches.amin(dim=0) + centre, patches.amax(dim=0) + centre
    usable = (low > -1 + 0.75 * _STEP) & (high < 1 - 0.75 * _STEP) & (high > low)
    if mask is not None:
        measured = mask.unfold(1, _PATCH, 1).unfold(2, _PATCH, 1).flatten(3).amin(-1) > 0
        usable &= measured.expand(len(block), -1, -1).flatten()
    weights = usable.float() / usable.sum().clamp_min(1)
    mean = patches @ weights
    return (patches * weights) @ patches.T - torch.outer(mean, mean), usable.float().mean()


def _noise_variance(covariances: Tensor) -> Tensor:
    """Mean (N,) of the most smallest eigenvalues of (N, P, P) whose mean does not exceed their median."""
    values = torch.linalg.eigvalsh(covariances.double()).clamp_min(0)
    count = torch.arange(1, values.shape[1] + 1)
    means = values.cumsum(dim=1) / count
    medians = values[:, (count - 1) // 2]
    most = ((means <= medians) * count).argmax(dim=1)
    return means.gather(1, most[:, None])[:, 0]
