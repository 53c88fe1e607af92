"""Grey images through networks that take RGB, and back."""

from __future__ import annotations

from torch import Tensor


def to_rgb(image: Tensor) -> Tensor:
    """Images (B, 3, H, W) of grey or RGB images (B, 1 or 3, H, W); a grey channel is repeated as a view."""
    return image.expand(-1, 3, -1, -1)


def from_rgb(image: Tensor, channels: int) -> Tensor:
    """Images (B, channels, H, W) of RGB images (B, 3, H, W): their mean for 1 channel, themselves for 3."""
    return image if channels == 3 else image.mean(1, keepdim=True)
