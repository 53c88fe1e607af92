"""Errors of estimated cameras, views and surfaces."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from ...metrics import psnr, ssim
from ..geometry.cameras import OBJECT_RADIUS, camera_axes
from ..objects.base import Floats, MeasuredObject

SURFACE_POINTS = 10_000
VOLUME_POINTS = 64  # along one side of the cube around the object


def pose_error(estimate: Tensor, truth: Tensor) -> Tensor:
    """Angles (...) in degrees between viewing directions of cameras (..., 3), polar angle, azimuth and radius.

    This is the geodesic distance of the two cameras on a sphere around the object, 0 to 180, whatever the
    radius.
    """
    a, b = torch.broadcast_tensors(*(camera_axes(camera.double())[3] for camera in (estimate, truth)))
    # atan2 is accurate at small angles, where the cosine is flat.
    sine = torch.linalg.cross(a, b, dim=-1).norm(dim=-1)
    return torch.rad2deg(torch.atan2(sine, (a * b).sum(-1))).to(estimate.dtype)


def view_quality(views: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean PSNR in dB and SSIM of views (K, 3, S, S) in [-1, 1]."""
    pairs = list(zip(views, truth, strict=True))
    quality, similarity = (float(np.mean([measure(*pair) for pair in pairs])) for measure in (psnr, ssim))
    return quality, similarity


def chamfer_distance(points: Floats, others: Floats) -> float:
    """Chamfer distance of two surfaces, given points (N, 3) and (M, 3) spread evenly over them.

    It is the mean distance from each point to the nearest one of the other surface, averaged over both
    directions, in units of the points.
    """
    there, back = (cKDTree(b).query(a)[0].mean() for a, b in ((points, others), (others, points)))
    return float(there + back) / 2


def volume_iou(inside: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two volumes; 1 if both are empty.

    Args:
        inside, truth: (P,) whether each of the same points is inside the estimated and the true volume.
    """
    union = (inside | truth).sum()
    return float((inside & truth).sum() / union) if union else 1.0


def compare_surface(mesh: trimesh.Trimesh, scene: MeasuredObject) -> tuple[float, float | None]:
    """Chamfer distance, in units of the object's radius `OBJECT_RADIUS`, and volume IoU of a mesh of an object.

    The IoU is None for an object without a volume, such as a sheet.

    Args:
        mesh: a closed surface in the coordinates of the object.
        scene: the object.
    """
    points = np.asarray(trimesh.sample.sample_surface(mesh, SURFACE_POINTS, seed=0)[0])
    chamfer = chamfer_distance(points, scene.surface_points(SURFACE_POINTS)) / OBJECT_RADIUS
    side = np.linspace(-OBJECT_RADIUS, OBJECT_RADIUS, VOLUME_POINTS)
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3)
    inside = scene.inside(grid)
    return chamfer, volume_iou(mesh.contains(grid), inside) if inside.any() else None
