"""What the solver is given: pixels, their noise, which of them count, and what the blur does at the frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Measurement:
    """Photographs of one size to restore together, on one device.

    Attributes:
        y: (B, C, H, W) float32, in [-1, 1] for an image.
        sigma: (B,) standard deviation of the measurement noise, in units of [-1, 1].
        mask: (1 or B, 1, H, W), 1 where the measurement counts, else 0; None for everywhere.
        circular: whether the blur wraps around; otherwise light came in from beyond the frame.
    """

    y: Tensor
    sigma: Tensor
    mask: Tensor | None = None
    circular: bool = True

    def __len__(self) -> int:
        return len(self.y)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.y.shape[-2], self.y.shape[-1]

    def to(self, device: torch.device) -> Measurement:
        """The same on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        return Measurement(self.y.to(device), self.sigma.to(device), mask, self.circular)

    def rows(self, rows: slice) -> Measurement:
        """Some photographs of the batch."""
        mask = self.mask if self.mask is None or len(self.mask) == 1 else self.mask[rows]
        return Measurement(self.y[rows], self.sigma[rows], mask, self.circular)

    def window(self, rows: slice, columns: slice) -> Measurement:
        """A part of every photograph; the whole of a circular one stays circular, a part is not."""
        part = self.y[..., rows, columns]
        mask = None if self.mask is None else self.mask[..., rows, columns]
        return Measurement(part, self.sigma, mask, self.circular and part.shape == self.y.shape)

    @property
    def measured_window(self) -> tuple[slice, slice]:
        """Rows and columns of the rectangle that holds all pixels that count, without a padded frame."""
        if self.mask is None:
            return slice(0, self.size[0]), slice(0, self.size[1])
        counts = self.mask.amax((0, 1)) > 0
        rows, columns = (line.nonzero()[[0, -1], 0].tolist() for line in (counts.any(1), counts.any(0)))
        return slice(rows[0], rows[1] + 1), slice(columns[0], columns[1] + 1)

    def repeated(self, count: int) -> Measurement:
        """Every photograph `count` times, one after the other: a batch of hypotheses."""
        return Measurement(
            self.y.repeat_interleave(count, 0), self.sigma.repeat_interleave(count), self.mask, self.circular
        )
