"""Moves the surface of a mesh so that its outlines are those that pictures show."""

from __future__ import annotations

import math

import numpy as np
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.sparse import bsr_array, coo_array, diags_array, eye_array, kron
from scipy.sparse.linalg import splu
from torch import Tensor

from ..geometry.cameras import FIELD_OF_VIEW, camera_axes, pixel_grid
from .hull import PosedViews

Floats = NDArray[np.floating]

FAIRING = 100  # steps of smoothing (Taubin, 1995) beforehand, as views with few pixels leave a surface rough
ROUNDS = 16
STIFFNESS = (30.0, 0.3)  # weight of the differences between neighbours' moves, in the first and the last round
RIM = 1.0  # pixels from the mesh's outline within which a vertex belongs to it
FARTHEST = 40  # pixels beyond which an outline does not pull


def meet_outlines(mesh: trimesh.Trimesh, pictures: PosedViews) -> trimesh.Trimesh:
    """The mesh with its vertices moved such that it has the outlines of the pictures.

    In every round, vertices at the outline of the mesh in a picture are drawn to the nearest point of the
    picture's outline, those outside of it too, and all other vertices follow smoothly. Faces and colours stay.

    Args:
        mesh: closed, with vertex colours.
        pictures: masks and cameras; the weights say how much each is trusted.
    """
    smooth = trimesh.smoothing.filter_taubin(mesh.copy(), lamb=0.5, nu=0.51, iterations=FAIRING)
    vertices = np.array(smooth.vertices)
    count, size = len(vertices), pictures.masks.shape[-1]
    targets = [_signed_distance(mask.numpy()) for mask in pictures.masks]
    edges = np.concatenate([mesh.edges_unique, mesh.edges_unique[:, ::-1]])
    graph = coo_array((np.ones(len(edges)), tuple(edges.T)), shape=(count, count)).tocsr()
    laplacian = kron(diags_array(graph.sum(1)) - graph, eye_array(3)).tocsc()
    for round_ in range(ROUNDS):
        blocks, pulls = np.zeros((count, 3, 3)), np.zeros((count, 3))
        for target, camera, weight in zip(targets, pictures.cameras, pictures.weights, strict=True):
            normals, moves, shares = _pulls(mesh, vertices, target, camera, size)
            shares = float(weight) * shares
            blocks += shares[:, None, None] * normals[:, :, None] * normals[:, None]
            pulls += (shares * moves)[:, None] * normals
        stiffness = STIFFNESS[0] * (STIFFNESS[1] / STIFFNESS[0]) ** (round_ / (ROUNDS - 1))
        pulled = bsr_array((blocks, np.arange(count), np.arange(count + 1)), shape=(3 * count, 3 * count))
        system = pulled.tocsc() + stiffness * laplacian + 1e-6 * eye_array(3 * count, format="csc")
        vertices = vertices + splu(system.tocsc()).solve(pulls.ravel()).reshape(-1, 3)
    moved = mesh.copy()
    moved.vertices = vertices
    return moved


def _pulls(
    mesh: trimesh.Trimesh, vertices: Floats, target: Floats, camera: Tensor, size: int
) -> tuple[Floats, Floats, Floats]:
    """Direction (V, 3), length (V,) in world units and weight (V,) of the pull of an outline on each vertex."""
    position, right, up, forward = (axis.numpy().astype(float) for axis in camera_axes(camera))
    tangents = [tangent.flatten().numpy()[:, None] for tangent in pixel_grid(size)]
    directions = (tangents[0] * right + tangents[1] * up + forward).astype(np.float32)
    scene = EmbreeScene()
    TriangleMesh(scene, vertices[mesh.faces].astype(np.float32))
    origins = np.broadcast_to(position.astype(np.float32), directions.shape).copy()
    own = _signed_distance((scene.run(origins, directions) >= 0).reshape(size, size).astype(float))
    rays = vertices - position
    depth, scale = rays @ forward, size / (2 * math.tan(FIELD_OF_VIEW / 2))
    place = np.stack([size / 2 - scale * (rays @ up) / depth, size / 2 + scale * (rays @ right) / depth]) - 0.5
    distance, rim = _looked_up(target, place), _looked_up(own, place)
    outside = distance > 0
    # From without, the nearest point of the outline is sought, and from within the next one straight ahead.
    slopes = np.where(outside, _slopes(target, place), _slopes(own, place))
    ahead = np.stack([_looked_up(target, place + step * slopes) for step in range(FARTHEST + 1)])
    first = np.argmax(ahead[1:] > 0, 0)
    before, after = (np.take_along_axis(ahead, (first + step)[None], 0)[0] for step in (0, 1))
    moves = np.where(outside, -distance, first + before / np.minimum(before - after, -1e-6))
    shares = np.where(outside, 1.0, np.exp(-((rim / RIM) ** 2)) * (after > 0)) * (np.abs(distance) < FARTHEST)
    normals = slopes[1][:, None] * right - slopes[0][:, None] * up
    return normals, moves * depth / scale, shares


def _looked_up(field: Floats, place: Floats) -> Floats:
    """Values (V,) of a field (S, S) at rows and columns (2, V)."""
    values: Floats = map_coordinates(field, place, order=1, mode="nearest")
    return values


def _slopes(field: Floats, place: Floats) -> Floats:
    """Unit gradients (2, V) of a field (S, S) at rows and columns (2, V)."""
    slopes = np.stack([_looked_up(np.gradient(field, axis=axis), place) for axis in (0, 1)])
    return slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-6)


def _signed_distance(mask: Floats) -> Floats:
    """Distance (S, S) in pixels to the outline of a mask (S, S), negative within; soft edges count."""
    inside = mask >= 0.5
    if not inside.any() or inside.all():
        return np.full(mask.shape, float(mask.size))
    distance = np.where(inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5)
    soft = (mask > 0) & (mask < 1) & (np.abs(distance) < 1)
    return np.where(soft, 0.5 - mask, distance)
