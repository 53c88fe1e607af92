"""New views with the detail of the pictures, from those of a prior and a textured mesh."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.cameras import camera_axes
from .drawing import draw
from .texture import TexturedMesh

NEAR = math.radians(40)  # width of the angle to the nearest picture within which the mesh is better than a prior


def detailed_views(views: Tensor, cameras: Tensor, known: Tensor, textured: TexturedMesh, size: int) -> Tensor:
    """Views (K, 3, size, size) in [-1, 1] on white, with coarse colours of a prior and detail of the pictures.

    Args:
        views: (K, 3, S, S) the views as the prior makes them, S < size.
        cameras: (K, 3) their cameras.
        known: (n, 3) cameras of the pictures.
        textured: the mesh with a texture from the pictures.
        size: pixels along one side.
    """
    drawn, _, seen = draw(textured, cameras, size)
    coarse = F.avg_pool2d(drawn, size // views.shape[-1]) if size % views.shape[-1] == 0 else drawn
    raise NotImplementedError
