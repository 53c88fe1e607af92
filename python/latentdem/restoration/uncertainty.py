"""The expected error of each pixel, from the spread of posterior samples."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

# docs/research/deblurring.md, "Calibration of the uncertainty":
SPREAD_FACTOR = 3.5  # standard deviations of the error by those of the samples, which are too close together
SPREAD_WIDTH = 5  # pixels a side of the neighbourhood in which these are averaged
LEAST = 0.02  # of the error beside the noise, where all samples lack the same texture; in units of [-1, 1]


def uncertainty(spread: Tensor, sigma: Tensor, scale: Tensor) -> Tensor:
    """The standard deviation (B, 1, H, W) of the error, on the CPU.

    Args:
        spread: (B, 3, H, W) standard deviation of the samples.
        sigma: (B,) that of the noise, in the same units.
        scale: (B,) units of the result in a unit of the samples.
    """
    variance = F.avg_pool2d(
        spread.square().mean(1, keepdim=True),
        SPREAD_WIDTH,
        stride=1,
        padding=SPREAD_WIDTH // 2,
        count_include_pad=False,
    ).cpu()
    floor = sigma.cpu().square().view(-1, 1, 1, 1) + LEAST**2
    return (SPREAD_FACTOR**2 * variance + floor).sqrt() * scale.view(-1, 1, 1, 1)
