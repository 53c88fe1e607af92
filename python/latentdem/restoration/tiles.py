"""Photographs larger than the working size: where to look for the kernel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from latentdem_ext.vae import Window


def informative_window(y: Tensor, size: int, kernel_size: int) -> Window:
    """The window of at most `size` x `size` pixels that tells most about the blur.

    A blur is seen where there are edges in every direction: the window with the largest smaller eigenvalue of
    the structure tensor, of the measurement smoothed over an eighth of the kernel so that noise does not
    count. Clipped pixels (within 1 % of black or white) break the linear model, so they count against it.

    Args:
        y: (1, C, H, W) in [-1, 1].
        size: side of the window; a smaller image is returned whole along that axis.
        kernel_size: K.
    """
    height, width = y.shape[-2:]
    rows, columns = min(size, height), min(size, width)
    if (rows, columns) == (height, width):
        return slice(0, height), slice(0, width)
    grey = y.mean(1, keepdim=True)
    smoothing = max(1, kernel_size // 8)
    smooth = F.avg_pool2d(F.pad(grey, (smoothing,) * 4, mode="replicate"), 2 * smoothing + 1, stride=1)
    dy, dx = (F.pad(smooth.diff(dim=d), p) for d, p in ((-2, (0, 0, 0, 1)), (-1, (0, 1, 0, 0))))
    clipped = ((y.abs() > 0.99).float().mean(1, keepdim=True)) * 2
    stride = max(1, min(rows, columns) // 16)

    def window_mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, (rows, columns), stride=stride)

    xx, yy, xy = window_mean(dx * dx), window_mean(dy * dy), window_mean(dx * dy)
    smaller = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    score = smaller * (1 - window_mean(clipped)).clamp_min(0)
    best = int(score.argmax())
    top, left = best // score.shape[-1] * stride, best % score.shape[-1] * stride
    return slice(top, top + rows), slice(left, left + columns)
