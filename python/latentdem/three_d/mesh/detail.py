"""New views with the detail of the pictures, from those of a prior and a textured mesh."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
import trimesh
from torch import Tensor

from ..geometry.cameras import camera_axes
from .drawing import draw

NEAR = math.radians(30)  # angle to the nearest picture at which the mesh counts 1 / e


def detailed_views(views: Tensor, cameras: Tensor, known: Tensor, mesh: trimesh.Trimesh, size: int) -> Tensor:
    """Views (K, 3, size, size) in [-1, 1] on white, which are those of the mesh near a picture.

    Farther away, where errors of the shape would put the detail to wrong places, they are those of the prior.

    Args:
        views: (K, 3, S, S) in [-1, 1] on white, the views as the prior makes them.
        cameras: (K, 3) their cameras.
        known: (n, 3) cameras of the pictures.
        mesh: with a texture from the pictures.
        size: pixels along one side.
    """
    drawn, _ = draw(mesh, cameras, size)
    ahead, others = (camera_axes(camera.float())[3] for camera in (cameras, known))
    angle = (ahead @ others.T).amax(1).clamp(-1, 1).acos()
    share = torch.exp(-((angle / NEAR) ** 2))[:, None, None, None]
    coarse = F.interpolate(views.float(), (size, size), mode="bicubic", align_corners=False).clamp(-1, 1)
    return share * drawn + (1 - share) * coarse
