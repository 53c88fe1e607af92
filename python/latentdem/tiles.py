"""Photographs larger than the working size: where to look for the kernel, and tiles to restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

Window = tuple[slice, slice]


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


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of evenly spread tiles that cover `length` and overlap by at least `overlap`."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def tile_windows(height: int, width: int, tile: int, overlap: int) -> Iterator[Window]:
    """Windows of at most `tile` x `tile` that cover the image, row by row."""
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def _ramp(window: slice, length: int, overlap: int, device: torch.device) -> Tensor:
    """(n,) weights that rise over `overlap` pixels from each side of a tile that is not the image's border."""
    size = window.stop - window.start
    position = torch.arange(size, device=device) + 0.5
    up = position / overlap if window.start > 0 else torch.ones(size, device=device)
    down = (size - position) / overlap if window.stop < length else torch.ones(size, device=device)
    return torch.minimum(up, down).clamp(max=1.0)


def restore_in_tiles(y: Tensor, restore: Callable[[Tensor, Window], Tensor], tile: int, overlap: int) -> Tensor:
    """Applies `restore` to overlapping tiles of `y` (B, C, H, W) and blends the results linearly.

    Only one tile and the output are in memory at a time.
    """
    height, width = y.shape[-2:]
    total, weight = torch.zeros_like(y), y.new_zeros(1, 1, height, width)
    for window in tile_windows(height, width, tile, overlap):
        rows, columns = window
        ramp = _ramp(rows, height, overlap, y.device)[:, None] * _ramp(columns, width, overlap, y.device)[None]
        total[..., rows, columns] += ramp * restore(y[..., rows, columns], window)
        weight[..., rows, columns] += ramp
    return total / weight
