"""Whether the blur of a photograph wraps around at its edges."""

from __future__ import annotations

import torch
from torch import Tensor

from .outliers import constant_lines

_LINES = 1024  # of a large photograph whose steps are looked at


def looks_circular(y: Tensor) -> bool:
    """Whether opposite edges of `y` (B, C, H, W) continue each other, as circular blur makes them.

    Compares the step across each seam with the steps between neighbours and between pixels half an image
    apart, which is how far apart the two edges of a photograph really are; the threshold is their geometric
    mean. Both seams have to be closed. A photograph with a border of constant rows or columns is not circular,
    although its seams are.
    """

    def step(a: Tensor, b: Tensor) -> float:
        return float((a - b).abs().mean())

    whole = y
    for axis in (-2, -1):
        size, across = y.shape[axis], -3 - axis
        every = max(1, y.shape[across] // _LINES)
        y = whole.index_select(across, torch.arange(0, y.shape[across], every, device=y.device))
        seam = step(y.narrow(axis, 0, 1), y.narrow(axis, size - 1, 1))
        near = step(y.narrow(axis, 1, size - 1), y.narrow(axis, 0, size - 1))
        far = step(y.narrow(axis, size // 2, size - size // 2), y.narrow(axis, 0, size - size // 2))
        if seam > (near * far) ** 0.5:
            return False
    for lines in map(constant_lines, whole):  # last, because it takes long
        if lines[[0, -1]].all(1).any() or lines[:, [0, -1]].all(0).any():
            return False
    return True
