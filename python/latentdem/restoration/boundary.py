"""Where a photograph ends: the lattice it is restored on, and which of its pixels were measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """A measurement of `size` inside a lattice of `lattice`, its first pixel at `offset` (all (rows, columns)).

    A circular measurement fills its lattice. One without a periodic boundary lies in a lattice larger by at
    least K - 1: the light that entered from beyond the frame gets pixels of its own, and what would be measured
    there is unknown (docs/reference/method.md, "Boundaries").
    """

    size: tuple[int, int]
    lattice: tuple[int, int]
    offset: tuple[int, int] = (0, 0)

    @classmethod
    def circular(cls, height: int, width: int) -> Frame:
        """The lattice is the image."""
        return cls((height, width), (height, width))

    @classmethod
    def extended(cls, height: int, width: int, kernel_size: int, multiple: int = 16) -> Frame:
        """A lattice for K x K blur without wrapping, its sides multiples of `multiple`."""
        rows, columns = (-(-(n + kernel_size - 1) // multiple) * multiple for n in (height, width))
        return cls((height, width), (rows, columns), ((rows - height) // 2, (columns - width) // 2))

    @property
    def is_circular(self) -> bool:
        """Whether every pixel of the lattice was measured."""
        return self.size == self.lattice

    @property
    def pixels(self) -> int:
        """Pixels of the lattice."""
        return self.lattice[0] * self.lattice[1]

    def place(self, y: Tensor) -> Tensor:
        """`y` (B, C, H, W) on the lattice, its edges replicated."""
        if self.is_circular:
            return y
        (top, left), (height, width), (rows, columns) = self.offset, self.size, self.lattice
        return F.pad(y, (left, columns - width - left, top, rows - height - top), mode="replicate")

    def crop(self, x: Tensor) -> Tensor:
        """The measured part of `x` (B, C, *lattice)."""
        (top, left), (height, width) = self.offset, self.size
        return x[..., top : top + height, left : left + width]

    def mask(self, device: torch.device | str = "cpu") -> Tensor | None:
        """(1, 1, *lattice), 1 where y was measured; None when it was everywhere."""
        if self.is_circular:
            return None
        mask = torch.zeros(1, 1, *self.lattice, device=device)
        self.crop(mask).fill_(1.0)
        return mask


def looks_circular(y: Tensor) -> bool:
    """Whether opposite edges of `y` (B, C, H, W) continue each other, as circular blur makes them.

    Compares the step across each seam with the steps between neighbours and between pixels half an image
    apart, which is how far apart the two edges of a photograph really are; the threshold is their geometric
    mean. Both seams have to be closed.
    """

    def step(a: Tensor, b: Tensor) -> float:
        return float((a - b).abs().mean())

    for axis in (-2, -1):
        size = y.shape[axis]
        seam = step(y.narrow(axis, 0, 1), y.narrow(axis, size - 1, 1))
        near = step(y.narrow(axis, 1, size - 1), y.narrow(axis, 0, size - 1))
        far = step(y.narrow(axis, size // 2, size - size // 2), y.narrow(axis, 0, size - size // 2))
        if seam > (near * far) ** 0.5:
            return False
    return True
