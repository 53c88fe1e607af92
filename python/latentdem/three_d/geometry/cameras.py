"""Cameras on a sphere around the object, in the conventions of Zero123 (docs/reference/three_d.md).

A camera is (polar, azimuth, radius): the angle from the z axis, which points up, the angle from the x axis
towards the y axis, both in radians, and the distance to the origin, at which it looks. The object lies in a
sphere of radius `OBJECT_RADIUS` around the origin. A relative pose is the difference of two cameras.

The origin appears in the middle of a picture unless the picture was cropped around another point. Where this is
unknown, a camera is (polar, azimuth, radius, right, up): the last two are its principal point, the position of
the origin in the picture to the right of the middle and above it, in world units at the distance of the origin.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FIELD_OF_VIEW = math.radians(49.1)  # as in the renderings that Zero123 was trained on
OBJECT_RADIUS = 0.6  # fills the picture of a camera at distance 1.45
EXTENT = 1.05 * OBJECT_RADIUS  # half the side of the cube in which the surface of an object is reconstructed
POLAR_RANGE = (math.radians(30), math.radians(110))  # cameras in the training data of the embedded prior
RADIUS_RANGE = (1.5, 1.8)
RADIUS = 1.6  # default distance of a camera to the object


def random_cameras(count: int, generator: torch.Generator) -> Tensor:
    """Random cameras (count, 3), float32, uniform within the training ranges of the embedded prior."""
    low = torch.tensor([POLAR_RANGE[0], -math.pi, RADIUS_RANGE[0]])
    high = torch.tensor([POLAR_RANGE[1], math.pi, RADIUS_RANGE[1]])
    return low + (high - low) * torch.rand(count, 3, generator=generator)


def grid_points(resolution: int) -> Tensor:
    """Grid points (N, N, N, 3) along x, y and z from -EXTENT to EXTENT, float32."""
    side = torch.linspace(-EXTENT, EXTENT, resolution)
    return torch.stack(torch.meshgrid(side, side, side, indexing="ij"), -1)


def wrap(angle: Tensor) -> Tensor:
    """Angles of any shape in radians, wrapped into [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def centred(cameras: Tensor) -> Tensor:
    """Cameras (..., 3) of pictures recropped around the origin at one distance, given cameras (..., 5)."""
    return F.pad(cameras[..., :2], (0, 1))


def relative_pose(camera: Tensor, reference: Tensor) -> Tensor:
    """Poses (..., 3) of `camera` relative to `reference`, both (..., 3), with the azimuth in [-pi, pi)."""
    difference = camera - reference
    return torch.cat([difference[..., :1], wrap(difference[..., 1:2]), difference[..., 2:]], dim=-1)


def mirrored(cameras: Tensor) -> Tensor:
    """Cameras or relative poses (..., 3) of mirrored pictures, whose azimuth changes its sign.

    Points (..., 3) of the world are mirrored in the same way: their y changes its sign.
    """
    return cameras * cameras.new_tensor([1.0, -1.0, 1.0])


def pose_embedding(pose: Tensor) -> Tensor:
    """Embedding (..., 4) of relative poses (..., 3) that Zero123 is conditioned on.

    It is (d polar, sin d azimuth, cos d azimuth, d radius), which is smooth and periodic in the azimuth.
    Source: Liu et al. 2023, *Zero-1-to-3*.
    """
    polar, azimuth, radius = pose.unbind(-1)
    return torch.stack([polar, azimuth.sin(), azimuth.cos(), radius], dim=-1)


def camera_axes(camera: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Position and the directions right, up and forward of cameras (..., 3), each (..., 3).

    They are smooth in the camera, even at the poles, where the azimuth determines which way is up.
    """
    polar, azimuth, radius = camera[..., :3].unbind(-1)
    sin_p, cos_p, sin_a, cos_a = polar.sin(), polar.cos(), azimuth.sin(), azimuth.cos()
    outward = torch.stack([sin_p * cos_a, sin_p * sin_a, cos_p], dim=-1)
    up = torch.stack([-cos_p * cos_a, -cos_p * sin_a, sin_p], dim=-1)
    right = torch.stack([-sin_a, cos_a, torch.zeros_like(sin_a)], dim=-1)
    return radius[..., None] * outward, right, up, -outward


def pixel_grid(size: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical tangents of the rays through pixel centres, each (size, size), float64.

    Right and up are positive; row 0 is the top row.
    """
    edge = math.tan(FIELD_OF_VIEW / 2)
    centres = ((torch.arange(size, dtype=torch.float64, device=device) + 0.5) / size * 2 - 1) * edge
    rows, columns = torch.meshgrid(-centres, centres, indexing="ij")
    return columns, rows
