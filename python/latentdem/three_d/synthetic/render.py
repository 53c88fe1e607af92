"""Antialiased renderings of objects: rays cast by Embree, one light, no shadows, transparent background."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal, cast

import numpy as np
import torch
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray
from torch import Tensor

from ..geometry.cameras import FIELD_OF_VIEW, OBJECT_RADIUS, camera_axes, pixel_grid
from ..objects.base import Floats, VisibleObject

LIGHT = np.array([0.48, 0.30, 0.82])  # direction from the object to the light that stays with the object
CAMERA_LIGHT = np.array([-0.35, 0.50, 0.79])  # the same in the axes of the camera: right, up, towards it
AMBIENT = 0.5
SAMPLES = 2  # rays along each side of a pixel

Hits = dict[str, NDArray[np.floating]]
View = NDArray[np.int64]
Shade = Callable[[Hits, Floats, Floats, View], NDArray[np.float32]]
Light = Literal["object", "camera"]


def render(
    shown: VisibleObject, cameras: Tensor, size: int = 64, light: Light | Floats = "object"
) -> NDArray[np.uint8]:
    """Pictures (V, size, size, 4) of an object: straight RGB and alpha, transparent around the object.

    The brightness of a side falls steadily from facing the light to facing away from it, without a dark half,
    so that the orientation of every side is visible.

    Args:
        shown: the object, inside the sphere of radius `OBJECT_RADIUS`.
        cameras: (V, 3), polar angle, azimuth and radius of each picture (see cameras.py).
        size: pixels along one side.
        light: "object" for a light that stays with the object, so that a point has the same colour from
            everywhere, "camera" for one that stays with the camera, as if the object were turned before it, or
            the direction (3,) to another light that stays with the object.
    """
    target = EmbreeScene()
    for part in shown.parts:
        TriangleMesh(target, part.corners().astype(np.float32))
    pixel = 2 * math.tan(FIELD_OF_VIEW / 2) / (SAMPLES * size)
    return _cast(target, partial(_shade, shown, _lights(light, cameras), pixel), cameras, size)


def render_mesh(mesh: trimesh.Trimesh, cameras: Tensor, size: int = 64) -> NDArray[np.uint8]:
    """Pictures (V, size, size, 4), as from `render`, of a mesh in its vertex colours, lit from the camera.

    Args:
        mesh: inside the sphere of radius `OBJECT_RADIUS`.
        cameras: (V, 3).
        size: pixels along one side.
    """
    target = EmbreeScene()
    TriangleMesh(target, mesh.triangles.astype(np.float32))
    return _cast(target, partial(_shade_mesh, mesh), cameras, size)


def on_white(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB pictures (..., 3) of RGBA ones (..., 4) on a white background."""
    alpha = pictures[..., 3:].astype(np.float32) / 255
    return (pictures[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def _cast(target: EmbreeScene, shade: Shade, cameras: Tensor, size: int) -> NDArray[np.uint8]:
    """Pictures of an Embree scene, with several rays per pixel."""
    fine = SAMPLES * size
    origins, directions, ray = _rays(cameras, fine)
    rgba = np.zeros((len(cameras) * fine * fine, 4), np.float32)
    hits = target.run(origins, directions, output=1)
    hit = hits["primID"] >= 0
    view = ray[hit] // (fine * fine)
    colours = shade({name: value[hit] for name, value in hits.items()}, origins[hit], directions[hit], view)
    rgba[ray[hit], :3], rgba[ray[hit], 3] = colours, 1
    cells = rgba.reshape(len(cameras), size, SAMPLES, size, SAMPLES, 4)
    total = np.zeros((len(cameras), size, size, 4), np.float32)
    for i in range(SAMPLES):
        for j in range(SAMPLES):
            total += cells[:, :, i, :, j]  # much faster than a mean over two axes
    total[..., :3] /= np.maximum(total[..., 3:], 1)
    total[..., 3] /= SAMPLES**2
    return (255 * total).round().astype(np.uint8)


@lru_cache
def _tangents(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tangents (size * size, 2) of the rays of a picture, and their squared lengths (size * size,)."""
    across, upwards = pixel_grid(size)
    tangents = torch.stack([across, upwards], -1).reshape(-1, 2).float().numpy()
    return tangents, (tangents**2).sum(1)


def _rays(cameras: Tensor, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Origins and directions (R, 3) of the rays that hit the sphere around the object, and their indices."""
    tangents, squared = _tangents(size)
    origins, directions, indices = [], [], []
    axes = [axis.float().numpy() for axis in camera_axes(cameras.double())]
    for index, (position, right, up, forward) in enumerate(zip(*axes, strict=True)):
        # Rays beyond the cone of tangents to the sphere miss it.
        sine = OBJECT_RADIUS / np.linalg.norm(position)
        hitting = np.flatnonzero(squared <= sine**2 / (1 - sine**2)) if sine < 1 else np.arange(len(squared))
        directions.append(tangents[hitting] @ np.stack([right, up]) + forward)
        origins.append(np.broadcast_to(position, (len(hitting), 3)))
        indices.append(hitting + index * size * size)
    return np.concatenate(origins), np.concatenate(directions), np.concatenate(indices)


def _lights(light: Light | Floats, cameras: Tensor) -> list[Floats]:
    """Directions (3,) to the light: one for all cameras, or one for each."""
    if not isinstance(light, str):
        return [light / np.linalg.norm(light)]
    if light == "object":
        return [LIGHT / np.linalg.norm(LIGHT)]
    _, right, up, forward = (axis.numpy() for axis in camera_axes(cameras.double()))
    directions = np.stack([right, up, -forward], -1) @ CAMERA_LIGHT
    return list(directions / np.linalg.norm(directions, axis=1, keepdims=True))


def _shade(
    shown: VisibleObject,
    lights: list[Floats],
    pixel: float,
    hits: Hits,
    origins: Floats,
    directions: Floats,
    view: View,
) -> NDArray[np.float32]:
    """Colours (N, 3) in [0, 1] of rays that hit the object; a ray is `pixel` wide at a depth of 1."""
    colours = np.empty((len(origins), 3), np.float32)
    points = origins + hits["tfar"][:, None] * directions
    shares = _shares(hits)
    for index, part in enumerate(shown.parts):
        own = np.flatnonzero(hits["geomID"] == index)
        faces = hits["primID"][own].astype(np.int64)
        # Only the component of the normals towards the light matters; it is interpolated between the corners.
        facing = np.stack([part.facing(light) for light in lights])
        towards = (facing[np.minimum(view[own], len(lights) - 1), faces] * shares[own]).sum(1)
        if part.two_sided:
            a, b, c = np.moveaxis(part.corners()[faces], 1, 0)
            towards = np.where((np.cross(b - a, c - a) * directions[own]).sum(1) > 0, -towards, towards)
        bright = AMBIENT + (1 - AMBIENT) * (0.5 + 0.5 * towards) ** 1.5
        own_colours = part.colours(faces, shares[own], points[own], pixel * hits["tfar"][own])
        colours[own] = own_colours * bright[:, None]
    return colours


def _shade_mesh(
    mesh: trimesh.Trimesh, hits: Hits, origins: Floats, directions: Floats, view: View
) -> NDArray[np.float32]:
    """Colours (N, 3) of rays that hit a mesh, the brighter the more a side faces the camera."""
    face = hits["primID"]
    vertex_colours = np.asarray(cast(Any, mesh.visual).vertex_colors)  # present for every kind of visual
    colours = vertex_colours[mesh.faces[face], :3] / 255
    colours = (colours * _shares(hits)[..., None]).sum(1)
    facing = np.abs((mesh.face_normals[face] * directions).sum(1)) / np.linalg.norm(directions, axis=1)
    return (colours * (AMBIENT + (1 - AMBIENT) * facing)[:, None]).astype(np.float32)


def _shares(hits: Hits) -> NDArray[np.floating]:
    """Barycentric coordinates (N, 3) of hits in their triangles."""
    return np.stack([1 - hits["u"] - hits["v"], hits["u"], hits["v"]], axis=1)
