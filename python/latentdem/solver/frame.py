"""Where a photograph ends: the padded grid it is restored on, and which of its pixels were measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..io.scratch import copy
from .measurement import Measurement


@dataclass(frozen=True)
class Frame:
    """A measurement of `size` on a padded grid of size `grid`, its first pixel at `offset`: (rows, columns).

    A circular measurement fills its grid. One without a periodic boundary lies in a grid larger by at
    least K - 1: the light that entered from beyond the frame gets pixels of its own, and what would be measured
    there is unknown (docs/reference/method.md, "Boundaries").
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    offset: tuple[int, int] = (0, 0)

    @classmethod
    def circular(cls, height: int, width: int) -> Frame:
        """The grid is the image."""
        return cls((height, width), (height, width))

    @classmethod
    def extended(cls, height: int, width: int, kernel_size: int, multiple: int = 16) -> Frame:
        """A grid for K x K blur without wrapping, its sides multiples of `multiple` that transform fast."""
        rows, columns = (_fast_length(n + kernel_size - 1, multiple) for n in (height, width))
        return cls((height, width), (rows, columns), ((rows - height) // 2, (columns - width) // 2))

    @property
    def is_circular(self) -> bool:
        """Whether every pixel of the grid was measured."""
        return self.size == self.grid

    @property
    def pixels(self) -> int:
        """Pixels of the grid."""
        return self.grid[0] * self.grid[1]

    def place(self, y: Tensor) -> Tensor:
        """`y` (B, C, H, W) on the grid, its edges replicated."""
        if self.is_circular:
            return y
        (top, left), (height, width), (rows, columns) = self.offset, self.size, self.grid
        return F.pad(y, (left, columns - width - left, top, rows - height - top), mode="replicate")

    def extend(self, measurement: Measurement) -> Measurement:
        """The measurement on the grid, with a mask of the pixels that were measured and count."""
        mask = None if measurement.mask is None else self.place(measurement.mask)
        mask = intersection(self.mask(measurement.y.device), mask)
        return Measurement(self.place(measurement.y), measurement.sigma, mask, measurement.circular)

    def wrap(self, measurement: Measurement) -> Measurement:
        """The measurement on the grid as if it wrapped around, without a mask: see `wrapped`."""
        y = wrapped(measurement.y, self.grid).roll(self.offset, (-2, -1))
        return Measurement(y, measurement.sigma, None, circular=True)

    def crop(self, x: Tensor) -> Tensor:
        """The measured part of `x` (B, C, *grid)."""
        (top, left), (height, width) = self.offset, self.size
        return x[..., top : top + height, left : left + width]

    def mask(self, device: torch.device | str = "cpu") -> Tensor | None:
        """(1, 1, *grid), 1 where y was measured; None when it was everywhere."""
        if self.is_circular:
            return None
        mask = torch.zeros(1, 1, *self.grid, device=device)
        self.crop(mask).fill_(1.0)
        return mask


def wrapped(y: Tensor, grid: tuple[int, int]) -> Tensor:
    """`y` (..., h, w) with rows and columns after its end, (..., *grid), that lead smoothly to its beginning.

    Both ends are mirrored outwards and cross-faded (the aim of Liu and Jia, ICIP 2008, without their solver).
    """
    for size in reversed(grid):  # columns, then rows
        length = y.shape[-1]
        added = size - length
        fade = torch.arange(1, added + 1, dtype=y.dtype, device=y.device) / (added + 1)
        fade = fade * fade * (3 - 2 * fade)
        index = torch.arange(added, device=y.device)
        mirrored_end = y[..., length - 1 - index % length]
        mirrored_start = y[..., (added - 1 - index) % length]
        y = torch.cat([y, mirrored_end * (1 - fade) + mirrored_start * fade], -1).transpose(-1, -2)
    return y


def intersection(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The pixels that are in both masks, None being the mask of all pixels."""
    return b if a is None else a if b is None else a * b


def filled(y: Tensor, mask: Tensor) -> Tensor:
    """`y` (B, C, H, W) with smooth values from the surroundings where `mask` (1 or B, 1, H, W) is 0, else 1.

    Means over squares that double until each contains a pixel of the mask; for wide gaps the coarse ones.
    """
    mask = mask.to(y).expand(len(y), -1, -1, -1)
    coarse = torch.cat([_halved(channel * mask) for channel in y.split(1, dim=1)], 1)
    levels = [(coarse, _halved(mask))]
    while not bool((levels[-1][1] > 0).all()) and max(levels[-1][0].shape[-2:]) > 1:
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1])))
    values, weights = levels[-1]
    result = values / weights.clamp_min(1e-6)
    for values, weights in reversed(levels[:-1]):
        upper = F.interpolate(result, values.shape[-2:], mode="bilinear", align_corners=False)
        result = torch.where(weights > 0, values / weights.clamp_min(1e-6), upper)
    filled = copy(y)
    for image, values, gaps in zip(filled, result, mask[:, 0] == 0, strict=True):
        image[:, gaps] = _enlarged(values, gaps)
    return filled


def _halved(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2, ceil_mode=True)


def _enlarged(values: Tensor, at: Tensor) -> Tensor:
    """`values` (C, h, w), enlarged bilinearly to the size of `at` (H, W) bool, where that is true: (C, N)."""
    corners = []
    for index, length, size in zip(at.nonzero(as_tuple=True), values.shape[1:], at.shape, strict=True):
        place = ((index + 0.5) * (length / size) - 0.5).clamp_min(0)
        first = place.long()
        corners.append(((first, 1 - (place - first)), ((first + 1).clamp_max(length - 1), place - first)))
    rows, columns = corners
    return torch.stack([values[:, i, j] * (a * b) for i, a in rows for j, b in columns]).sum(0)


def interior_mask(height: int, width: int, kernel_size: int, device: torch.device) -> Tensor | None:
    """(1, 1, H, W), 1 where a K x K blur sees only pixels of the image; None for K = 1."""
    if kernel_size == 1:
        return None
    mask = torch.zeros(1, 1, height, width, device=device)
    after = kernel_size // 2
    before = kernel_size - 1 - after
    # Pixel n of k * x depends on x[n - (m - K // 2)], from n - before to n + after.
    mask[..., before : height - after, before : width - after] = 1.0
    return mask


def _fast_length(least: int, multiple: int) -> int:
    """The first multiple from `least` on without prime factors above 13, which make transforms slow."""
    length = -(-least // multiple) * multiple
    while True:
        rest = length
        for factor in (2, 3, 5, 7, 11, 13):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += multiple
