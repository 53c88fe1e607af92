"""Views with cameras, and their visual hull as a signed-distance field."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..geometry.cameras import FIELD_OF_VIEW, camera_axes, grid_points

AGREEMENT = 0.8  # share of the views that must show the object at a point of the visual hull


@dataclass(frozen=True)
class SurfaceField:
    """A coloured surface on a grid of points over [-EXTENT, EXTENT]^3.

    Attributes:
        distance: (N, N, N) signed distance along x, y and z, in voxels, negative inside the object.
        colour: (N, N, N, 3) in [0, 1]; meaningful only near the surface.
    """

    distance: Tensor
    colour: Tensor


@dataclass(frozen=True)
class PosedViews:
    """Views of an object and their cameras.

    Attributes:
        colours: (V, 3, S, S) in [0, 1], on white.
        masks: (V, S, S) in [0, 1], the share of each pixel that the object covers.
        cameras: (V, 3), see cameras.py.
        weights: (V,) weights of the views, with mean 1.
        filled: (N, N, N) probability in [0, 1] that the object is at each point of `grid_points`, if a prior
            predicts it.
    """

    colours: Tensor
    masks: Tensor
    cameras: Tensor
    weights: Tensor
    filled: Tensor | None = None

    def at_most(self, size: int) -> PosedViews:
        """The same with at most `size` pixels along one side: a grid resolves no more than its own points."""
        if self.masks.shape[-1] <= size:
            return self
        shrink = F.adaptive_avg_pool2d
        return replace(self, colours=shrink(self.colours, size), masks=shrink(self.masks, size))


def visual_hull(views: PosedViews, resolution: int) -> SurfaceField:
    """Signed distance to the region that nearly all views show as the object, in its mean colour.

    Not all views need to agree, because a single wrong one would otherwise carve away what the others show. If
    no point has enough votes, the hull consists of the points with the most.
    """
    points = grid_points(resolution).reshape(-1, 3)
    votes = torch.zeros(len(points))
    for mask, camera, weight in zip(views.masks, views.cameras, views.weights, strict=True):
        shown = F.grid_sample(mask[None, None], project(points, camera), align_corners=False).flatten()
        votes += weight * (shown > 0.5)
    needed = min(AGREEMENT * len(views.masks), float(votes.max()))
    inside = (votes >= needed).reshape((resolution,) * 3).numpy()
    distance = distance_transform_edt(~inside) - distance_transform_edt(inside)
    share = views.masks / views.masks.sum()
    colour = torch.einsum("vchw,vhw->c", views.colours, share)
    return SurfaceField(torch.from_numpy(distance).float(), colour.expand(*inside.shape, 3))


def project(points: Tensor, camera: Tensor) -> Tensor:
    """Picture coordinates (1, 1, P, 2) of points (P, 3) seen by a camera (3,), as `grid_sample` takes them."""
    position, right, up, forward = camera_axes(camera)
    ray = points - position
    depth = math.tan(FIELD_OF_VIEW / 2) * (ray @ forward)
    return torch.stack([ray @ right / depth, -(ray @ up) / depth], -1)[None, None]
