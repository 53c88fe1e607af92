"""Pictures of a textured mesh without any light, as its texture is."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from torch import Tensor

from ..geometry.cameras import camera_axes, pixel_grid
from .texture import TexturedMesh

SAMPLES = 2  # rays along each side of a pixel


def draw(textured: TexturedMesh, cameras: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (V, 3, S, S) in [-1, 1] on white, and two shares of each pixel (V, S, S) in [0, 1].

    The first is that which the mesh covers, the second that whose colour comes from pictures.

    Args:
        textured: the mesh, within a sphere of radius `OBJECT_RADIUS`.
        cameras: (V, 3), see cameras.py.
        size: pixels S along one side.
    """
    mesh, fine = textured.mesh, SAMPLES * size
    scene = EmbreeScene()
    TriangleMesh(scene, mesh.triangles.astype(np.float32))
    visual = mesh.visual
    image = np.asarray(visual.material.baseColorTexture)[..., :3] / np.float32(255)
    layers = torch.from_numpy(np.concatenate([image, textured.seen[..., None]], -1)).movedim(-1, 0)[None]
    places = visual.uv[mesh.faces] * np.float32([2, -2]) + np.float32([-1, 1])
    across, upwards = (tangent.flatten().float()[:, None] for tangent in pixel_grid(fine))
    pictures, covered, seen = [], [], []
    for camera in cameras.float():
        position, right, up, forward = camera_axes(camera)
        directions = across * right + upwards * up + forward
        origins = position.expand_as(directions).contiguous()
        hits = scene.run(origins.numpy(), directions.numpy(), output=1)
        hit = np.flatnonzero(hits["primID"] >= 0)
        u, v = hits["u"][hit, None], hits["v"][hit, None]
        a, b, c = np.moveaxis(places[hits["primID"][hit]], 1, 0)
        grid = torch.from_numpy((1 - u - v) * a + u * b + v * c).float()[None, None]
        shown = torch.zeros(fine * fine, 5)
        shown[hit, :4] = F.grid_sample(layers, grid, padding_mode="border", align_corners=False)[0, :, 0].T
        shown[hit, 4] = 1
        colour, from_pictures, alpha = F.avg_pool2d(
            shown.T.reshape(5, fine, fine), SAMPLES
        ).split([3, 1, 1])
        pictures.append(2 * (colour + 1 - alpha) - 1)
        covered.append(alpha[0])
        seen.append(from_pictures[0])
    return torch.stack(pictures), torch.stack(covered), torch.stack(seen)
