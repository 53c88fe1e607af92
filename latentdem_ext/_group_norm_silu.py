"""Group normalisation followed by SiLU."""

from __future__ import annotations

from torch import Tensor

from . import _checks, reference


def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """silu(group_norm(x)) of (B, C, ...): see `reference.group_norm_silu`.

    Raises:
        TypeError: an argument is not a floating-point tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, or `groups` does not divide C.
    """
    _checks.tensor("x", x, _checks.REAL_DTYPES)
    if x.dim() < 2:
        raise ValueError(f"x must have a channel dimension, its shape is {tuple(x.shape)}")
    channels = x.shape[1:2]
    _checks.companion("weight", weight, "x", x, channels)
    _checks.companion("bias", bias, "x", x, channels)
    if groups < 1 or channels[0] % groups:
        raise ValueError(f"groups must divide the {channels[0]} channels of x, it is {groups}")
    return reference.group_norm_silu(x, groups, weight, bias, eps)
