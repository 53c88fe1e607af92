"""Colours of a surface from the pictures of it, and from a prior where no picture shows it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import spsolve
from torch import Tensor

from ..geometry.cameras import FIELD_OF_VIEW, RADIUS, camera_axes, pixel_grid
from .atlas import Atlas, unwrap
from .hull import PosedViews, project

Floats = NDArray[np.floating]

FINENESS = 1.5  # pixels of the texture per pixel of a picture, at the object's middle
FACING = (0.02, 0.2)  # cosines between which a picture begins to count, as its rays meet the surface steeper
SHARPNESS = 4.0  # power of the cosine by which a picture counts among others
IN_FRONT, MARGIN = 0.1, 2  # a point is hidden if something within so many pixels is so far in front of it
BEHIND = 0.01  # a point is glimpsed if it is at most so far behind what a ray next to it meets
GLIMPSED = 1e-3  # weight of a picture in which a point is glimpsed only, among others
SOLID = 0.9  # a pixel has the object's own colour if the object covers this share of it
SMOOTHING = 20.0  # how far the correction of the prior's colours is smoothed along the surface


def colour_by(mesh: trimesh.Trimesh, pictures: PosedViews) -> trimesh.Trimesh:
    """The mesh with a texture from the pictures of it; vertices on its seams are repeated.

    A point gets the mean of the pictures that show it, weighted by the angle at which they do; if none shows it
    well, as it is at an edge or beside something in front of it, that of the pictures in which it is glimpsed.
    Where none does it keeps the mesh's own colour, corrected by how much this differs from the pictures in the
    neighbourhood.

    Args:
        mesh: with vertex colours.
        pictures: the pictures, their masks and cameras; the weights say how much each is trusted.
    """
    size = pictures.masks.shape[-1]
    density = FINENESS * size / (2 * RADIUS * math.tan(FIELD_OF_VIEW / 2))
    atlas = unwrap(mesh, density)
    scene = EmbreeScene()
    TriangleMesh(scene, mesh.triangles.astype(np.float32))
    total, weights = np.zeros((len(atlas.points), 3), np.float32), np.zeros(len(atlas.points), np.float32)
    seen, glimpsed = np.zeros((2, len(atlas.points)), np.float32)
    views = zip(pictures.colours, pictures.masks, pictures.cameras, pictures.weights, strict=True)
    for colours, mask, camera, trust in views:
        shown, facing, met = _visible(scene, atlas, camera, size)
        grid = project(torch.from_numpy(atlas.points), camera)
        looked_up = F.grid_sample(
            _spread(colours, mask)[None], grid, mode="bicubic", padding_mode="border", align_corners=False
        )[0, :, 0].T.numpy()
        weight = float(trust) * (shown * facing**SHARPNESS + GLIMPSED * met) + 1e-12
        total += weight[:, None] * looked_up.clip(0, 1)
        weights += weight
        seen, glimpsed = np.maximum(seen, shown), np.maximum(glimpsed, met)
    colours = total / weights[:, None]
    visual: Any = mesh.visual
    own = np.asarray(visual.vertex_colors)[:, :3].astype(np.float32) / 255
    rest = _filled(mesh, atlas, colours, seen, own)
    share = np.maximum(seen, glimpsed)[:, None]
    colours = share * colours + (1 - share) * rest
    picture = (255 * atlas.picture(colours.clip(0, 1))).round().astype(np.uint8)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(picture), metallicFactor=0.0, roughnessFactor=1.0
    )
    return trimesh.Trimesh(
        mesh.vertices[atlas.vertices],
        atlas.faces,
        vertex_normals=mesh.vertex_normals[atlas.vertices],
        visual=trimesh.visual.TextureVisuals(uv=atlas.places, material=material),
        process=False,
    )


def _visible(
    scene: EmbreeScene, atlas: Atlas, camera: Tensor, size: int
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """How well a camera shows each point, the cosine of the angle at which it does, and whether it is glimpsed.

    Each is (P,), the first in [0, 1].
    """
    position, right, up, forward = (axis.numpy() for axis in camera_axes(camera.float()))
    across, upwards = (tangent.flatten().float().numpy()[:, None] for tangent in pixel_grid(size))
    directions = (across * right + upwards * up + forward).astype(np.float32)
    hits = scene.run(np.broadcast_to(position, directions.shape).copy(), directions, output=1)
    # The directions have the length 1 along the axis of the camera, so that distances are depths.
    depth = np.where(hits["primID"] >= 0, hits["tfar"], np.inf).reshape(size, size)
    rays = atlas.points - position
    own = rays @ forward
    tangent = math.tan(FIELD_OF_VIEW / 2)
    column, row = ((1 + sign * rays @ axis / own / tangent) / 2 * size for sign, axis in ((1, right), (-1, up)))
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    pixel = tuple(np.clip(value, 0, size - 1).astype(int) for value in (row, column))
    visible = inside & (own - minimum_filter(depth, 2 * MARGIN + 1)[pixel] < IN_FRONT)
    farthest = maximum_filter(np.where(np.isfinite(depth), depth, 0), 3)
    met = inside & (own - farthest[pixel] < BEHIND)
    facing = -(rays * atlas.normals).sum(1) / np.linalg.norm(rays, axis=1)
    low, high = FACING
    return visible * ((facing - low) / (high - low)).clip(0, 1), facing.clip(0, 1), met


def _spread(colours: Tensor, mask: Tensor) -> Tensor:
    """A picture (3, S, S) in which the colours of the object continue beyond its edge."""
    solid = mask.numpy() >= SOLID
    if not solid.any():
        return colours
    row, column = distance_transform_edt(~solid, return_distances=False, return_indices=True)
    return colours[:, row, column]


def _filled(mesh: trimesh.Trimesh, atlas: Atlas, colours: Floats, seen: Floats, own: Floats) -> Floats:
    """Colours (P, 3) of a mesh, given for its vertices, brought into line with those that pictures show.

    The difference is averaged around the vertices, and continued smoothly along the surface to where no
    picture shows it.
    """
    count = len(mesh.vertices)
    between = (own[atlas.corners] * atlas.shares[..., None]).sum(1)
    weight = seen[:, None] * atlas.shares
    known = np.bincount(atlas.corners.ravel(), weight.ravel(), count)
    mean = np.bincount(atlas.corners.ravel(), atlas.shares.ravel(), count).mean()
    edges = np.concatenate([mesh.edges_unique, mesh.edges_unique[:, ::-1]])
    graph = coo_array((np.ones(len(edges)), tuple(edges.T)), shape=(count, count)).tocsr()
    degrees = graph.sum(1)
    system = diags_array(known / mean + SMOOTHING * degrees + 1e-6) - SMOOTHING * graph
    correction = np.empty((count, 3), np.float32)
    for channel in range(3):
        difference = weight * (colours - between)[:, channel, None]
        target = np.bincount(atlas.corners.ravel(), difference.ravel(), count) / mean
        correction[:, channel] = spsolve(system.tocsc(), target)
    return between + (correction[atlas.corners] * atlas.shares[..., None]).sum(1)
