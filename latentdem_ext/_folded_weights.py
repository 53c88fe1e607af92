"""The 4 x 4 kernel of upsampling and convolving at once, computed once for each weight.

Nearest upsampling by 2 followed by a 3 x 3 convolution is the transposed convolution of stride 2 whose kernel
is the (flipped) 3 x 3 kernel convolved with ones(2, 2): along one axis, out[2i] = w0 x[i - 1] + (w1 + w2) x[i]
and out[2i + 1] = (w0 + w1) x[i] + w2 x[i + 1], that is out[o] = sum over i of x[i] k[o - 2i + 1] with
k = (w2, w1 + w2, w0 + w1, w0).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference
from ._weight_cache import WeightCache


def fold(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(O, C, 3, 3) -> (C, O, 4, 4), channels last: k above along both axes, summed in float32 or more."""
    flipped = reference.arithmetic(weight).flip(-2, -1)
    rows = F.pad(flipped, (0, 0, 0, 1)) + F.pad(flipped, (0, 0, 1, 0))
    kernel = F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))
    return kernel.to(dtype).transpose(0, 1).contiguous(memory_format=torch.channels_last)


folded = WeightCache(fold)  # (weight, dtype) -> fold(weight, dtype)
