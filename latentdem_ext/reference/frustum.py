"""Volumes in the frustum of one camera, seen from another one.

The two cameras of a sample are given by a matrix M (3, 4) and two distances (d, r), in units of the radius of
the sphere that the volumes lie in. The pixel at (u, v), right and down from -1 to 1, of the plane at s, from
front to back from -1 to 1, of the wanted camera is at (X, Y, f) = M ((d + s) u, (d + s) v, d + s, 1) in the
other camera's frame. In its frustum that is the position (X / f, Y / f, f - r), right, down and away from -1 to
1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["composite", "frustum_hits", "frustum_positions", "frustum_resample"]

NEAREST = 1 / 6  # smallest divisor f; kNearest in csrc/cpu/frustum.hpp


def frustum_positions(matrix: Tensor, distances: Tensor, size: Sequence[int]) -> Tensor:
    """Positions (B, d, h, w, 3) in the frustum of the other camera, as `grid_sample` takes them.

    Args:
        matrix: (B, 3, 4).
        distances: (B, 2), of the wanted camera and of the other one.
        size: planes, rows and columns (d, h, w).
    """
    away, down, right = torch.meshgrid(*(_centres(count, matrix) for count in size), indexing="ij")
    depth = distances[:, :1, None, None] + away
    point = torch.stack([depth * right, depth * down, depth, torch.ones_like(depth)], -1)
    x, y, forward = torch.einsum("bij,bdhwj->ibdhw", matrix, point)
    forward = forward.clamp_min(NEAREST)
    return torch.stack([x / forward, y / forward, forward - distances[:, 1:, None, None]], -1)


def frustum_resample(volume: Tensor, matrix: Tensor, distances: Tensor) -> Tensor:
    """Volumes (B, v, d, h, w) of one camera resampled in the frustum of another, trilinearly, zero outside.

    Args:
        volume: (B, v, d, h, w), planes from front to back, rows from top to bottom, columns from left to right.
        matrix, distances: see `frustum_positions`.
    """
    positions = frustum_positions(matrix, distances, volume.shape[2:])
    return F.grid_sample(volume, positions, align_corners=False)


def frustum_hits(opacity: Tensor, matrix: Tensor, distances: Tensor) -> Tensor:
    """Where the rays of one camera hit what is opaque in the frustum of another, (B, 4, h, w).

    Channel 0 is the share of a ray that hits; the others are the mean position along the ray times that share.

    Args:
        opacity: (B, 1, d, h, w) in [0, 1].
        matrix, distances: see `frustum_positions`.
    """
    positions = frustum_positions(matrix, distances, opacity.shape[2:])
    resampled = F.grid_sample(opacity, positions, align_corners=False)
    return composite(torch.cat([resampled, positions.movedim(-1, 1)], 1))


def composite(volume: Tensor) -> Tensor:
    """Front view (B, v, h, w) of volumes (B, v, d, h, w) by alpha compositing.

    Channel 0 of a volume is its opacity in [0, 1], and channel 0 of the result that of the whole ray; the other
    channels are emitted by what is not hidden by planes in front. Source: Max 1995, *Optical models for direct
    volume rendering*.
    """
    opacity = volume[:, :1]
    # Products of 1, 2, 4, ... planes, because the gradient of `cumprod` makes the host wait for the GPU.
    before, reach = F.pad(1 - opacity[:, :, :-1], (0, 0, 0, 0, 1, 0), value=1.0), 1
    while reach < opacity.shape[2]:
        before = before * F.pad(before[:, :, :-reach], (0, 0, 0, 0, reach, 0), value=1.0)
        reach *= 2
    light = torch.cat([torch.ones_like(opacity), volume[:, 1:]], dim=1)
    return (opacity * before * light).sum(2)


def _centres(count: int, like: Tensor) -> Tensor:
    """Centres (count,) of equal parts of [-1, 1]."""
    return (torch.arange(count, dtype=like.dtype, device=like.device) * 2 + 1) / count - 1
