"""Volumes of features in the frustum of a camera, carried into that of another one, and seen from there."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras import FIELD_OF_VIEW, OBJECT_RADIUS, camera_axes, pixel_grid

FAINT = 0.02  # share of a pixel below which it is not told where it meets the object
HIDDEN = 0.5  # in units of the object's radius, so much deeper than what is seen is certainly hidden


def cells(cameras: Tensor, depths: int, size: int) -> Tensor:
    """Points (B, depths, size, size, 3) of the world: the centres of the cells of the cameras' frustums.

    The axes count planes away from the camera, from front to back through the sphere that objects lie in, and
    the pixels of its picture from above and from the left.

    Args:
        cameras: (B, 3), or (B, 5) with principal points; see cameras.py.
        depths: planes.
        size: pixels along one side.
    """
    across, upwards = (tangent.to(cameras) for tangent in pixel_grid(size, cameras.device))
    rays = torch.stack([across, upwards, torch.ones_like(across)], dim=-1)
    rays = rays - F.pad(_principal(cameras), (0, 1))[:, None, None]
    planes = plane_depths(depths, cameras) * OBJECT_RADIUS
    position, axes = _frame(cameras)
    directions = torch.einsum("bki,bhwk->bhwi", axes, rays)
    depth = (cameras[:, 2, None] + planes)[..., None, None, None]
    return position[:, None, None, None] + depth * directions[:, None]


def plane_depths(depths: int, like: Tensor) -> Tensor:
    """Where the planes of a frustum are, (depths,), from -1 to 1 through the object, with dtype and device."""
    return (torch.arange(depths, dtype=like.dtype, device=like.device) + 0.5) / depths * 2 - 1


def carry(volume: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
    """The volumes (B, v, d, h, w) of `known` cameras as the `wanted` ones have them, the same shape.

    Trilinear, zero outside, differentiable in the cameras.

    Args:
        volume: its axes as in `cells`; h = w.
        known, wanted: (B, 3) or (B, 5) cameras.
    """
    where = locate(cells(wanted, volume.shape[-3], volume.shape[-1]), known)
    return F.grid_sample(volume, where.to(volume), align_corners=False)


def locate(points: Tensor, cameras: Tensor) -> Tensor:
    """Where points (B, d, h, w, 3) are in the frustums of cameras, as for `cells`; the same shape.

    To the right, downwards and away from the camera, each from -1 to 1 within the frustum, as `grid_sample`
    takes them.
    """
    position, axes = _frame(cameras)
    right, up, forward = torch.einsum("bki,bdhwi->kbdhw", axes, points - position[:, None, None, None])
    forward, edge = forward.clamp_min(0.1), math.tan(FIELD_OF_VIEW / 2)
    across, upwards = _principal(cameras)[..., None, None, None].unbind(1)
    behind = (forward - cameras[:, 2, None, None, None]) / OBJECT_RADIUS
    return torch.stack([(right / forward + across) / edge, -(up / forward + upwards) / edge, behind], dim=-1)


def hits(opacity: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
    """Where the pixels of `wanted` cameras meet the object, as the `known` ones have it, (B, 4, h, w).

    Channel 0 is the share of a ray that meets it, the others are the mean of `locate` along the ray times that
    share. Differentiable in all.

    Args:
        opacity: (B, 1, d, h, w) in the frustums of the known cameras, its axes as in `cells`; h = w.
        known, wanted: (B, 3) or (B, 5) cameras.
    """
    where = locate(cells(wanted, opacity.shape[-3], opacity.shape[-1]), known).to(opacity)
    there = F.grid_sample(opacity, where, align_corners=False)
    return composite(torch.cat([there, where.movedim(-1, 1)], dim=1))


def warp(picture: Tensor, met: Tensor) -> Tensor:
    """Pictures of known cameras where the pixels of wanted ones meet the object, (B, c + 1, S, S).

    All channels are multiplied by the last one, the share of a pixel that meets it. The last channel of a
    picture is how deep in the frustum what it shows is; of the result, how much deeper the point is that is
    met, which is hidden from the known camera if it is much.

    Args:
        picture: (B, c, S, S), 0 where nothing is shown; the depth from -1 to 1 as in `locate`.
        met: (B, 4, h, w) as `hits` gives it.
    """
    share, *where = F.interpolate(met, picture.shape[-2:], mode="bilinear", align_corners=False).unbind(1)
    x, y, depth = (each / share.clamp_min(FAINT) for each in where)
    shown = F.grid_sample(picture, torch.stack([x, y], dim=-1), align_corners=False)
    deeper = ((depth - shown[:, -1]) / HIDDEN).clamp(-1, 1)
    return torch.cat([shown[:, :-1], deeper[:, None], torch.ones_like(deeper)[:, None]], dim=1) * share[:, None]


def composite(volume: Tensor) -> Tensor:
    """What is seen of volumes (B, v, d, h, w) from the front, (B, v, h, w).

    Channel 0 of a volume is its opacity in [0, 1], channel 0 of the result that of the whole ray; the others
    are emitted by what is not hidden by planes before it. Source: Max 1995, *Optical models for direct volume
    rendering*.
    """
    opacity = volume[:, :1]
    # Products of 1, 2, 4, ... planes: for the gradient of `cumprod` a host has to wait for its GPU.
    before, reach = F.pad(1 - opacity[:, :, :-1], (0, 0, 0, 0, 1, 0), value=1.0), 1
    while reach < opacity.shape[2]:
        before = before * F.pad(before[:, :, :-reach], (0, 0, 0, 0, reach, 0), value=1.0)
        reach *= 2
    light = torch.cat([torch.ones_like(opacity), volume[:, 1:]], dim=1)
    return (opacity * before * light).sum(2)


def _principal(cameras: Tensor) -> Tensor:
    """Tangents (B, 2), to the right and upwards, of where the pictures of cameras show the origin."""
    return cameras[:, 3:] / cameras[:, 2:3] if cameras.shape[1] > 3 else torch.zeros_like(cameras[:, :2])


def _frame(camera: Tensor) -> tuple[Tensor, Tensor]:
    """Position (B, 3) of cameras, and their axes right, up and forward as the rows of (B, 3, 3)."""
    position, *axes = camera_axes(camera)
    return position, torch.stack(axes, dim=1)
