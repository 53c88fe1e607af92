"""Feature volumes in camera frustums: resampled in the frustum of another camera, and rendered from there."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from latentdem_ext import frustum_hits, frustum_resample

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
    return frustum_resample(volume, *between(known, target, volume))


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


def between(known: Tensor, target: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """How `latentdem_ext.frustum_resample` takes the cameras: matrices (B, 3, 4) and distances (B, 2).

    Args:
        known, target: (B, 3) or (B, 5) cameras.
        like: tensor of the dtype of the results.
    """
    edge, (origin, axes), (position, wanted) = math.tan(FIELD_OF_VIEW / 2), _frame(known), _frame(target)
    turn, offset = axes @ wanted.mT, axes @ (position - origin)[..., None] / OBJECT_RADIUS
    rays = _with_principal([edge, -edge, 1.0], -_principal(target))
    pixels = _with_principal(
        [1 / edge, -1 / edge, 1.0], _principal(known) * known.new_tensor([1 / edge, -1 / edge])
    )
    distances = torch.stack([target[:, 2], known[:, 2]], 1) / OBJECT_RADIUS
    return (pixels @ torch.cat([turn @ rays, offset], 2)).to(like), distances.to(like)


def _with_principal(diagonal: list[float], principal: Tensor) -> Tensor:
    """Matrices (B, 3, 3) with this diagonal and `principal` (B, 2) in the last column."""
    return torch.diag(principal.new_tensor(diagonal)) + F.pad(principal[..., None], (2, 0, 0, 1))


def hits(opacity: Tensor, known: Tensor, target: Tensor) -> Tensor:
    """Points (B, 4, h, w) where the rays of `target` cameras hit the object, in the frustums of `known` ones.

    Channel 0 is the share of a ray that hits the object; the others are the mean of `locate` along the ray
    times that share. Differentiable in all arguments.

    Args:
        opacity: (B, 1, d, h, w) opacity in the frustums of the known cameras, with the axes of `cells`; h = w.
        known, target: (B, 3) or (B, 5) cameras.
    """
    return frustum_hits(opacity, *between(known, target, opacity))


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


def _principal(cameras: Tensor) -> Tensor:
    """Tangents (B, 2), right and up, of the directions in which cameras (B, 3) or (B, 5) see the origin."""
    return cameras[:, 3:] / cameras[:, 2:3] if cameras.shape[1] > 3 else torch.zeros_like(cameras[:, :2])


def _frame(camera: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (B, 3) of cameras, and their axes right, up and forward as the rows of (B, 3, 3)."""
    position, *axes = camera_axes(camera)
    return position, torch.stack(axes, dim=1)
