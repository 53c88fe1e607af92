"""Volumes of features in the frustum of a camera, carried into that of another one, and seen from there."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .cameras import FIELD_OF_VIEW, OBJECT_RADIUS, camera_axes, pixel_grid


def cells(cameras: Tensor, depths: int, size: int) -> Tensor:
    """Points (B, depths, size, size, 3) of the world: the centres of the cells of the cameras' frustums.

    The axes count planes away from the camera, from front to back through the sphere that objects lie in, and
    the pixels of its picture from above and from the left.

    Args:
        cameras: (B, 3), see cameras.py.
        depths: planes.
        size: pixels along one side.
    """
    across, upwards = (tangent.to(cameras) for tangent in pixel_grid(size))
    rays = torch.stack([across, upwards, torch.ones_like(across)], dim=-1)
    planes = ((torch.arange(depths).to(cameras) + 0.5) / depths * 2 - 1) * OBJECT_RADIUS
    position, axes = _frame(cameras)
    directions = torch.einsum("bki,hwk->bhwi", axes, rays)
    depth = (cameras[:, 2, None] + planes)[..., None, None, None]
    return position[:, None, None, None] + depth * directions[:, None]


def carry(volume: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
    """The volumes (B, v, d, h, w) of `known` cameras as the `wanted` ones have them, the same shape.

    Trilinear, zero outside, differentiable in the cameras.

    Args:
        volume: its axes as in `cells`; h = w.
        known, wanted: (B, 3) cameras.
    """
    position, axes = _frame(known)
    points = cells(wanted, volume.shape[-3], volume.shape[-1]) - position[:, None, None, None]
    right, up, forward = torch.einsum("bki,bdhwi->kbdhw", axes, points)
    edge = math.tan(FIELD_OF_VIEW / 2) * forward.clamp_min(0.1)
    behind = (forward - known[:, 2, None, None, None]) / OBJECT_RADIUS
    where = torch.stack([right / edge, -up / edge, behind], dim=-1)
    return F.grid_sample(volume, where.to(volume), align_corners=False)


def composite(volume: Tensor) -> Tensor:
    """What is seen of volumes (B, v, d, h, w) from the front, (B, v, h, w).

    Channel 0 of a volume is its opacity in [0, 1], channel 0 of the result that of the whole ray; the others
    are emitted by what is not hidden by planes before it. Source: Max 1995, *Optical models for direct volume
    rendering*.
    """
    opacity = volume[:, :1]
    before = F.pad((1 - opacity[:, :, :-1]).cumprod(2), (0, 0, 0, 0, 1, 0), value=1.0)
    light = torch.cat([torch.ones_like(opacity), volume[:, 1:]], dim=1)
    return (opacity * before * light).sum(2)


def _frame(camera: Tensor) -> tuple[Tensor, Tensor]:
    """Position (B, 3) of cameras, and their axes right, up and forward as the rows of (B, 3, 3)."""
    position, *axes = camera_axes(camera)
    return position, torch.stack(axes, dim=1)
