"""Padding of images of any size for networks that halve their size several times."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """The smallest (height, width) of at least this size with both sides multiples of `multiple`."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """`x` (B, C, H, W) with its right and lower edge replicated up to `padded_size`."""
    height, width = x.shape[-2:]
    rows, columns = padded_size(height, width, multiple)
    if (rows, columns) == (height, width):
        return x
    return F.pad(x, (0, columns - width, 0, rows - height), mode="replicate")
