"""Feature volumes in camera frustums: resampled in the frustum of another camera, and rendered from there."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.cameras import FIELD_OF_VIEW, OBJECT_RADIUS, camera_axes, pixel_grid

FAINT = 0.02  # smallest divisor for the share of a pixel whose ray hits the object
HIDDEN = 0.5  # depth behind the visible surface at which a point is certainly hidden, in object radii


def cells(cameras: Tensor, depths: int, size: int) -> Tensor:
    """Centres (B, depths, size, size, 3) of the cells of the cameras' frustums, in world coordinates.

    The axes are the planes from front to back through the sphere that objects lie in, and the rows and columns
    of pixels from the top and from the left.

    Args:
        cameras: (B, 3), or (B, 5) with principal points; see cameras.py.
        depths: number of planes.
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
    """Depths (depths,) of the planes of a frustum, from -1 to 1 through the object, with dtype of `like`."""
    return (torch.arange(depths, dtype=like.dtype, device=like.device) + 0.5) / depths * 2 - 1


def resample(volume: Tensor, known: Tensor, target: Tensor) -> Tensor:
    """Volumes of `known` cameras resampled in the frustums of `target` cameras, (B, v, d, h, w).

    The interpolation is trilinear, zero outside, and differentiable in the cameras.

    Args:
        volume: (B, v, d, h, w) with the axes of `cells`; h = w.
        known, target: (B, 3) or (B, 5) cameras.
    """
    positions = locate(cells(target, volume.shape[-3], volume.shape[-1]), known)
    return F.grid_sample(volume, positions.to(volume), align_corners=False)


def locate(points: Tensor, cameras: Tensor) -> Tensor:
    """Positions of points (B, d, h, w, 3) in the frustums of cameras (B, 3) or (B, 5), in the same shape.

    The coordinates point right, down and away from the camera, and are from -1 to 1 within the frustum, as
    `grid_sample` takes them.
    """
    position, axes = _frame(cameras)
    right, up, forward = torch.einsum("bki,bdhwi->kbdhw", axes, points - position[:, None, None, None])
    forward, edge = forward.clamp_min(0.1), math.tan(FIELD_OF_VIEW / 2)
    across, upwards = _principal(cameras)[..., None, None, None].unbind(1)
    behind = (forward - cameras[:, 2, None, None, None]) / OBJECT_RADIUS
    return torch.stack([(right / forward + across) / edge, -(up / forward + upwards) / edge, behind], dim=-1)


def hits(opacity: Tensor, known: Tensor, target: Tensor) -> Tensor:
    """Points (B, 4, h, w) where the rays of `target` cameras hit the object, in the frustums of `known` ones.

    Channel 0 is the share of a ray that hits the object; the others are the mean of `locate` along the ray
    times that share. Differentiable in all arguments.

    Args:
        opacity: (B, 1, d, h, w) opacity in the frustums of the known cameras, with the axes of `cells`; h = w.
        known, target: (B, 3) or (B, 5) cameras.
    """
    positions = locate(cells(target, opacity.shape[-3], opacity.shape[-1]), known).to(opacity)
    resampled = F.grid_sample(opacity, positions, align_corners=False)
    return composite(torch.cat([resampled, positions.movedim(-1, 1)], dim=1))


def warp(picture: Tensor, hit: Tensor) -> Tensor:
    """Pictures of known cameras sampled where the rays of target cameras hit the object, (B, c + 1, S, S).

    All channels are multiplied by the last one, the share of a pixel that hits the object. The last channel of
    `picture` is the depth of the visible surface in the frustum. Channel c - 1 of the result is how much deeper
    the hit point is; a much deeper point is hidden from the known camera.

    Args:
        picture: (B, c, S, S), 0 on the background; depths are from -1 to 1 as in `locate`.
        hit: (B, 4, h, w) as returned by `hits`.
    """
    share, *positions = F.interpolate(hit, picture.shape[-2:], mode="bilinear", align_corners=False).unbind(1)
    x, y, depth = (position / share.clamp_min(FAINT) for position in positions)
    shown = F.grid_sample(picture, torch.stack([x, y], dim=-1), align_corners=False)
    deeper = ((depth - shown[:, -1]) / HIDDEN).clamp(-1, 1)
    return torch.cat([shown[:, :-1], deeper[:, None], torch.ones_like(deeper)[:, None]], dim=1) * share[:, None]


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


def _principal(cameras: Tensor) -> Tensor:
    """Tangents (B, 2), right and up, of the directions in which cameras (B, 3) or (B, 5) see the origin."""
    return cameras[:, 3:] / cameras[:, 2:3] if cameras.shape[1] > 3 else torch.zeros_like(cameras[:, :2])


def _frame(camera: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (B, 3) of cameras, and their axes right, up and forward as the rows of (B, 3, 3)."""
    position, *axes = camera_axes(camera)
    return position, torch.stack(axes, dim=1)
