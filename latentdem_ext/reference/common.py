"""Shared by several definitions: scalars of a sample, and the precision of the arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["arithmetic", "per_sample"]


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) values in the dtype of `like` (B, ...) and in a shape that multiplies it."""
    return values.to(like.dtype).view(-1, *([1] * (like.dim() - 1)))


def arithmetic(tensor: Tensor) -> Tensor:
    """Half precision is computed in float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
