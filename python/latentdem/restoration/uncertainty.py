"""The expected error of each pixel, from the spread of posterior samples."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

# Standard deviations of the error by those of the samples, which are too close together, and pixels a side of
# the neighbourhood in which these are averaged (docs/research/deblurring.md, "Calibration of the uncertainty").
SPREAD_FACTOR, SPREAD_WIDTH = 4.0, 5


def uncertainty(spread: Tensor, scale: Tensor) -> Tensor:
    """The standard deviation (B, 1, H, W) of the error, on the CPU.

    Args:
        spread: (B, 3, H, W) standard deviation of the samples.
        scale: (B,) units of the result in a unit of the samples.
    """
    variance = F.avg_pool2d(
        spread.square().mean(1, keepdim=True),
        SPREAD_WIDTH,
        stride=1,
        padding=SPREAD_WIDTH // 2,
        count_include_pad=False,
    )
    return SPREAD_FACTOR * variance.sqrt().cpu() * scale.view(-1, 1, 1, 1)
