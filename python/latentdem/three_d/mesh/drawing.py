"""Pictures of a textured mesh without any light, as its texture is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from torch import Tensor

from ..geometry.cameras import camera_axes, pixel_grid

SAMPLES = 2  # rays along each side of a pixel


def draw(mesh: trimesh.Trimesh, cameras: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Pictures (V, 3, S, S) in [-1, 1] on white, and the share (V, S, S) of each pixel that the mesh covers.

    Args:
        mesh: with a texture, within a sphere of radius `OBJECT_RADIUS`.
        cameras: (V, 3), see cameras.py.
        size: pixels S along one side.
    """
    fine = SAMPLES * size
    scene = EmbreeScene()
    TriangleMesh(scene, mesh.triangles.astype(np.float32))
    visual: Any = mesh.visual
    image = np.asarray(visual.material.baseColorTexture)[..., :3] / np.float32(255)
    skin = torch.from_numpy(image).movedim(-1, 0)[None]
    places = visual.uv[mesh.faces] * np.array([2, -2]) + np.array([-1, 1])
    across, upwards = (tangent.flatten().float()[:, None] for tangent in pixel_grid(fine))
    pictures, covered = [], []
    for camera in cameras.float():
        position, right, up, forward = camera_axes(camera)
        directions = across * right + upwards * up + forward
        origins = position.expand_as(directions).contiguous()
        hits = scene.run(origins.numpy(), directions.numpy(), output=1)
        hit = np.flatnonzero(hits["primID"] >= 0)
        u, v = hits["u"][hit, None], hits["v"][hit, None]
        a, b, c = np.moveaxis(places[hits["primID"][hit]], 1, 0)
        grid = torch.from_numpy((1 - u - v) * a + u * b + v * c).float()[None, None]
        shown = torch.zeros(fine * fine, 4)
        shown[hit, :3] = F.grid_sample(skin, grid, padding_mode="border", align_corners=False)[0, :, 0].T
        shown[hit, 3] = 1
        colour, alpha = F.avg_pool2d(shown.T.reshape(4, fine, fine), SAMPLES).split([3, 1])
        pictures.append(2 * (colour + 1 - alpha) - 1)
        covered.append(alpha[0])
    return torch.stack(pictures), torch.stack(covered)
