"""Height of the first view, estimated from silhouettes: relative poses do not determine it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.cameras import EXTENT, POLAR_RANGE, RADIUS, camera_axes, pixel_grid
from .hull import PosedViews, visual_hull

STEP = 5.0  # degrees between the polar angles that are tried
SIZE = 32  # grid points along one side of the hull, and pixels of its silhouettes


def estimate_first_camera(poses: Tensor, views: PosedViews) -> Tensor:
    """Camera (3,) of view 1 at the polar angle at which the silhouettes of all views fit one object best.

    At a wrong polar angle the visual hull of the views does not look like the masks that it was carved from.
    Azimuth and distance only fix the coordinates: they are 0 and `RADIUS`.

    Args:
        poses: (V, 3) poses of the views relative to view 1.
        views: the views; their cameras are ignored.
    """
    coarse = views.at_most(SIZE)
    low, high = (round(math.degrees(angle) / STEP) for angle in POLAR_RANGE)
    candidates = [torch.tensor([math.radians(STEP * i), 0.0, RADIUS]) for i in range(low, high + 1)]
    return min(candidates, key=lambda camera: silhouette_error(coarse, camera + poses))


def silhouette_error(views: PosedViews, cameras: Tensor) -> float:
    """Mean absolute difference between masks and the silhouettes of their visual hull, from these cameras."""
    views = replace(views, cameras=cameras, filled=None)
    inside = (visual_hull(views, SIZE).distance < 0).float()[None, None]
    size = views.masks.shape[-1]
    across, upwards = (tangent[..., None].float() for tangent in pixel_grid(size))
    steps = torch.linspace(-EXTENT, EXTENT, SIZE)[:, None, None, None]
    total = 0.0
    for mask, camera, weight in zip(views.masks, cameras, views.weights, strict=True):
        position, right, up, forward = camera_axes(camera)
        direction = F.normalize(across * right + upwards * up + forward, dim=-1)
        points = (position + (position.norm() + steps) * direction) / EXTENT
        # grid_sample takes coordinates in the order of the last axis first.
        silhouette = F.grid_sample(inside, points.flip(-1)[None], align_corners=True).amax((0, 1, 2))
        total += float(weight * (silhouette - mask).abs().mean())
    return total / float(views.weights.sum())
