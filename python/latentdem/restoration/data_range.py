"""The part of a file's range that its data fill: 12 bits of a camera in a 16-bit file, for example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..io.scratch import copy

_EIGHT_BITS = 127.5  # grey levels per unit of [-1, 1]
_MOST_BITS = 16
_CHUNK = 2**20  # values
_ROWS = 512  # of a photograph
_ROUNDING = 1e-3  # grey levels
_PEDESTAL = 0.25  # share of the range below which the data are scaled by their own least and greatest value
_BEYOND = 0.01  # of the range; floats that leave [-1, 1] by more have a range of their own


@dataclass(frozen=True)
class DataRange:
    """The ends (B,) of the range of photographs, in units of [-1, 1]."""

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, y: Tensor, counts: Tensor | None = None) -> DataRange:
        """The range of (B, C, H, W); `counts` (B, 1, H, W) bool leaves out pixels such as hot ones.

        It is [-1, 1] for data with the levels of 8 bits. For finer data it is that of the smallest number of
        bits that suffices, or of the values themselves if they fill less than a quarter of that.
        """
        ends = []
        for i, sample in enumerate(y):
            parts = sample.split(_ROWS, 1)  # in parts, for the sake of memory
            if counts is not None:
                counted = counts[i, 0].split(_ROWS)
                parts = tuple(rows[:, has] for rows, has in zip(parts, counted, strict=True) if has.any())
            ends.append(_ends(parts))
        return cls(*(torch.tensor(end, dtype=torch.float64) for end in zip(*ends, strict=True)))

    @classmethod
    def full(cls, count: int) -> DataRange:
        """[-1, 1] for `count` photographs."""
        return cls(torch.full((count,), -1.0), torch.full((count,), 1.0))

    @property
    def is_full(self) -> bool:
        """Whether all ranges are [-1, 1]."""
        return bool((self.low == -1).all() and (self.high == 1).all())

    @property
    def scale(self) -> Tensor:
        """(B,) float32 factor of the file's units in those of the data's range."""
        return ((self.high - self.low) / 2).float()

    def stretched(self, y: Tensor) -> Tensor:
        """(B, C, H, W) such that the range becomes [-1, 1]."""
        if self.is_full:
            return y
        low, width = (v.view(-1, 1, 1, 1) for v in (self.low, self.high - self.low))
        return _by_rows(y, lambda rows: 2 * (rows - low) / width - 1)

    def restored(self, image: Tensor) -> Tensor:
        """The inverse of `stretched`, on any device."""
        if self.is_full:
            return image
        low, width = (v.view(-1, 1, 1, 1) for v in (self.low, self.high - self.low))
        return _by_rows(image, lambda rows: low + (rows + 1) / 2 * width)


def _by_rows(image: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function` of the values (B, C, H, W) in float64 on the CPU; in parts, for the sake of memory."""
    result = copy(image)
    for rows in result.split(_ROWS, -2):
        rows.copy_(function(rows.cpu().double()))
    return result


def quantisation_step(y: Tensor) -> float:
    """Difference between two levels of photographs `y` (...), in units of [-1, 1]: the least that occurs.

    It is that of 8 bits for data with such levels, whether or not two neighbouring ones occur.
    """
    if has_eight_bits(y):
        return 1 / _EIGHT_BITS
    levels = torch.cat([part.double().unique() for part in y.reshape(-1).split(_CHUNK)])
    differences = levels.unique().diff()
    return float(differences.min()) if len(differences) else 1 / _EIGHT_BITS


def has_eight_bits(y: Tensor) -> bool:
    """Whether all values of `y` (...) in [-1, 1] are levels of 8 bits."""

    def has(part: Tensor) -> bool:
        levels = (part.double() + 1) * _EIGHT_BITS
        return bool(((levels - levels.round()).abs() < _ROUNDING).all() and (part.abs() <= 1 + 1e-6).all())

    return all(map(has, y.reshape(-1).split(_CHUNK)))  # in parts, for the sake of memory


def _ends(parts: Sequence[Tensor]) -> tuple[float, float]:
    least, greatest = (min(float(part.min()) for part in parts), max(float(part.max()) for part in parts))
    beyond = least < -1 - _BEYOND or greatest > 1 + _BEYOND
    if beyond or least == greatest or all(map(has_eight_bits, parts)):
        return -1.0, 1.0
    top = 2.0**_MOST_BITS - 1
    sufficient = (n for n in range(1, _MOST_BITS) if (greatest + 1) / 2 * top <= 2**n - 1 + 0.01)
    bits = next(sufficient, _MOST_BITS)  # also for values that noise has taken a little beyond white
    high = -1 + 2 * (2**bits - 1) / top
    if greatest - least < _PEDESTAL * (high + 1):
        return least, greatest
    return -1.0, high if bits < _MOST_BITS else 1.0
