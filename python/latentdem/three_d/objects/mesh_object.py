"""Objects made of triangles, with textures, colours at the corners, and several materials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from ...errors import UserError
from ..geometry.cameras import OBJECT_RADIUS
from .base import Faces, Floats
from .texture import Texture

SMOOTH = math.cos(math.radians(45))  # a corner is lit smoothly if its faces differ less from their mean
DIRECTIONS = 13  # rays from each point whose inside is asked for
AWAY = 1e-3  # distance from the surface at which it is asked whether a side is an outer one


@dataclass(frozen=True)
class MeshSurface:
    """Triangles of one material.

    Attributes:
        triangles: (F, 3, 3) corners: triangle, corner, coordinate.
        normals: (F, 3, 3) unit normals at the corners, for shading.
        colour: (3,) in [0, 1], by which the other colours are multiplied.
        corner_colours: (F, 3, 3) in [0, 1], if the corners have colours.
        texture: the picture on the surface, if there is one.
        places: (F, 3, 2) coordinates of the corners in the texture.
    """

    triangles: Floats
    normals: Floats
    colour: Floats
    corner_colours: Floats | None = None
    texture: Texture | None = None
    places: Floats | None = None

    two_sided = True  # files do not always turn their faces outwards

    def corners(self) -> Floats:
        return self.triangles

    def facing(self, light: Floats) -> Floats:
        return self.normals @ light

    def colours(self, faces: Faces, shares: Floats, points: Floats, pixels: Floats) -> Floats:
        colours = np.broadcast_to(self.colour, (len(faces), 3))
        if self.corner_colours is not None:
            colours = colours * (self.corner_colours[faces] * shares[..., None]).sum(1)
        if self.texture is not None and self.places is not None:
            places = (self.places[faces] * shares[..., None]).sum(1)
            colours = colours * self.texture(places, self._density(faces) * pixels)
        return colours

    def _density(self, faces: Faces) -> Floats:
        """Pixels of the texture per unit of length on these triangles, (N,)."""
        assert self.texture is not None and self.places is not None  # noqa: PT018
        a, b = np.moveaxis(self.places[faces, 1:] - self.places[faces, :1], 1, 0)
        area = np.linalg.norm(_across(self.triangles[faces]), axis=1)
        shown = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) * self.texture.pixels
        return np.sqrt(shown / np.maximum(area, 1e-12))


@dataclass(frozen=True)
class MeshObject:
    """An object made of triangles, inside the sphere of radius `OBJECT_RADIUS` around the origin; z points up.

    Attributes:
        parts: triangles of each material.
    """

    parts: tuple[MeshSurface, ...]

    def inside(self, points: Floats) -> NDArray[np.bool_]:
        """Whether each of the points (N, 3) lies inside the object, (N,).

        A point is inside if, of the rays from it in directions spread over the sphere, more first meet the back
        of a face than meet nothing; those that meet a front do not count. So surfaces may have holes and may
        intersect, as those of scans and models do. A vessel with a
        single wall counts as full.
        """
        triangles = self._triangles()
        outwards = _across(triangles)
        within = np.flatnonzero((np.abs(points) < np.abs(triangles).max((0, 1))).all(1))
        scene = EmbreeScene()
        TriangleMesh(scene, triangles.astype(np.float32))
        origins, balance = points[within].astype(np.float32), np.zeros(len(within), int)
        for direction in _sphere(DIRECTIONS):
            hit = scene.run(origins, np.broadcast_to(direction, origins.shape).copy())
            balance += np.where(hit < 0, -1, outwards[hit] @ direction > 0)
        result = np.zeros(len(points), bool)
        result[within] = balance > 0
        return result

    def surface_points(self, count: int, seed: int = 0) -> Floats:
        """About `count` points (N, 3) spread evenly over the outer surface (for the Chamfer distance)."""
        triangles = self._triangles()
        mesh = trimesh.Trimesh(**trimesh.triangles.to_kwargs(triangles), process=False)
        points, faces = trimesh.sample.sample_surface(mesh, 3 * count, seed=seed)
        normals = _unit(_across(triangles[faces]))
        outer = ~(self.inside(points + AWAY * normals) & self.inside(points - AWAY * normals))
        return np.asarray(points)[outer][:count]

    def _triangles(self) -> Floats:
        return np.concatenate([part.triangles for part in self.parts])


def assembled(parts: Sequence[MeshSurface]) -> MeshObject:
    """An object of these surfaces, in any coordinates: centred, scaled, turned outwards, with new normals.

    The middle of the bounding box becomes the origin, and the farthest corner gets the distance
    `OBJECT_RADIUS`. Connected surfaces whose volume is negative are turned inside out.

    Raises:
        UserError: nothing has an area, or a coordinate is not a number.
    """
    if not all(np.isfinite(value).all() for part in parts for value in _by_corner(part).values()):
        raise UserError("Some coordinates of the mesh are not numbers.")
    # Areas of very small or large coordinates would be numbers that a float cannot hold.
    size = max((np.abs(part.triangles).max() for part in parts), default=0.0)
    _, exponent = np.frexp(size)  # dividing by a power of two changes no digit
    parts = [replace(part, triangles=np.ldexp(part.triangles, -exponent)) for part in parts]
    solid = [_selected(part, np.linalg.norm(_across(part.triangles), axis=1) > 0) for part in parts]
    solid = [part for part in solid if len(part.triangles)]
    if not solid:
        raise UserError("The mesh has no faces that have an area.")
    triangles = np.concatenate([part.triangles for part in solid])
    low, high = triangles.min((0, 1)), triangles.max((0, 1))
    triangles = triangles - (low + high) / 2
    triangles *= OBJECT_RADIUS / np.linalg.norm(triangles, axis=2).max()
    vertices = np.unique(triangles.reshape(-1, 3).round(6), axis=0, return_inverse=True)[1].reshape(-1, 3)
    turned = _inside_out(triangles, vertices)
    triangles[turned], vertices[turned] = triangles[turned, ::-1], vertices[turned, ::-1]
    normals = _corner_normals(triangles, vertices)
    placed, start = [], 0
    for part in solid:
        own = slice(start, start + len(part.triangles))
        start = own.stop
        part = _reversed(part, turned[own])
        placed.append(replace(part, triangles=triangles[own], normals=normals[own].astype(np.float32)))
    return MeshObject(tuple(placed))


def _selected(part: MeshSurface, chosen: NDArray[np.bool_]) -> MeshSurface:
    """The chosen (F,) triangles of a surface."""
    return replace(part, **{name: value[chosen] for name, value in _by_corner(part).items()})


def _reversed(part: MeshSurface, turned: NDArray[np.bool_]) -> MeshSurface:
    """A surface with the corners of the triangles `turned` (F,) in the opposite order."""
    values = _by_corner(part)
    for name, value in values.items():
        values[name] = np.where(turned[:, None, None], value[:, ::-1], value)
    return replace(part, **values)


def _by_corner(part: MeshSurface) -> dict[str, Any]:
    """The arrays (F, 3, ...) of a surface that have a value for each corner."""
    values = {name: getattr(part, name) for name in ("triangles", "normals", "corner_colours", "places")}
    return {name: value for name, value in values.items() if value is not None}


def _inside_out(triangles: Floats, vertices: Faces) -> NDArray[np.bool_]:
    """Whether each triangle (F,) belongs to a connected surface of negative volume."""
    ones = np.repeat(vertices[:, :1], 2, axis=1)
    edges = np.concatenate([np.stack([ones[:, i], vertices[:, i + 1]], 1) for i in (0, 1)])
    labels = trimesh.graph.connected_component_labels(edges, node_count=vertices.max() + 1)[vertices[:, 0]]
    count = np.bincount(labels)
    middles = [np.bincount(labels, triangles.mean(1)[:, i]) / np.maximum(count, 1) for i in range(3)]
    moved = triangles - np.stack(middles, 1)[labels][:, None]
    volume = np.einsum("fi,fi->f", moved[:, 0], np.cross(moved[:, 1], moved[:, 2]))
    return np.bincount(labels, volume)[labels] < 0


def _corner_normals(triangles: Floats, vertices: Faces) -> Floats:
    """Normals (F, 3, 3): the mean of the faces around a corner where they are alike, else that of the face."""
    across = _across(triangles)
    total = np.zeros((vertices.max() + 1, 3))
    for axis in range(3):
        total[:, axis] = np.bincount(vertices.ravel(), np.repeat(across[:, axis], 3))
    face, smooth = _unit(across)[:, None], _unit(total)[vertices]
    return np.where((smooth * face).sum(2, keepdims=True) > SMOOTH, smooth, face)


def _across(triangles: Floats) -> Floats:
    """Normals (F, 3) of triangles (F, 3, 3), twice as long as their area is large."""
    across: Floats = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return across


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20)


def _sphere(count: int) -> NDArray[np.float32]:
    """Unit vectors (count, 3) spread evenly over the sphere, on a Fibonacci spiral."""
    height = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * math.pi * (3 - math.sqrt(5))
    across = np.sqrt(1 - height**2)
    return np.stack([across * np.cos(angle), across * np.sin(angle), height], 1).astype(np.float32)
