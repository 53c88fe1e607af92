"""How high the first view was taken from: what relative poses leave open, and a surface needs to know."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras import EXTENT, POLAR_RANGE, RADIUS, camera_axes, pixel_grid
from .volume import Pictures, visual_hull

STEP = 5.0  # degrees between the heights that are tried
SIZE = 32  # grid points along one side of the hull, and pixels of its silhouettes


def first_camera(poses: Tensor, pictures: Pictures) -> Tensor:
    """The camera (3,) of view 1, at whose polar angle the silhouettes of all views fit one object best.

    From a wrong height the visual hull of the views does not look like the masks that it was cut by. Azimuth
    and distance only choose coordinates: they are 0 and `RADIUS`.

    Args:
        poses: (V, 3) of the views relative to view 1.
        pictures: the views; their cameras are not looked at.
    """
    coarse = pictures.at_most(SIZE)
    low, high = (round(math.degrees(angle) / STEP) for angle in POLAR_RANGE)
    candidates = [torch.tensor([math.radians(STEP * i), 0.0, RADIUS]) for i in range(low, high + 1)]
    return min(candidates, key=lambda camera: disagreement(coarse, camera + poses))


def disagreement(pictures: Pictures, cameras: Tensor) -> float:
    """The mean difference of the masks and the silhouettes of their own visual hull, seen by these cameras."""
    pictures = Pictures(pictures.colours, pictures.masks, cameras, pictures.weights)
    inside = (visual_hull(pictures, SIZE).distance < 0).float()[None, None]
    size = pictures.masks.shape[-1]
    across, upwards = (tangent[..., None].float() for tangent in pixel_grid(size))
    steps = torch.linspace(-EXTENT, EXTENT, SIZE)[:, None, None, None]
    total = 0.0
    for mask, camera, weight in zip(pictures.masks, cameras, pictures.weights, strict=True):
        position, right, up, forward = camera_axes(camera)
        direction = F.normalize(across * right + upwards * up + forward, dim=-1)
        points = (position + (position.norm() + steps) * direction) / EXTENT
        # grid_sample counts the last axis of a volume first.
        seen = F.grid_sample(inside, points.flip(-1)[None], align_corners=True).amax((0, 1, 2))
        total += float(weight * (seen - mask).abs().mean())
    return total / float(pictures.weights.sum())
