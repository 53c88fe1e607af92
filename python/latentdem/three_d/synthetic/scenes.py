"""Procedural objects: random compositions of textured shapes, reproducible by their seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..geometry.cameras import OBJECT_RADIUS
from ..objects.base import Faces
from . import shapes
from .shapes import Shape
from .textures import Floats, Texture, random_colour, random_texture

HELD_OUT = 10_000_000  # smallest seed of the objects that are never trained on


@dataclass(frozen=True)
class Part:
    """A placed shape, a `Surface`: a point q of the shape is at p = linear q + offset.

    Attributes:
        shape: the shape in its own coordinates.
        texture: the texture in the coordinates of the shape.
        linear: (3, 3).
        offset: (3,).
    """

    shape: Shape
    texture: Texture
    linear: Floats
    offset: Floats

    two_sided = False

    def local(self, points: Floats) -> Floats:
        """`points` (N, 3) in the coordinates of the shape."""
        return (points - self.offset) @ np.linalg.inv(self.linear).T

    def vertices(self) -> Floats:
        """Vertices (V, 3) of the placed shape."""
        return self.shape.vertices @ self.linear.T + self.offset

    def normals(self) -> Floats:
        """Unit normals (V, 3) of the placed shape."""
        normals = self.shape.normals @ np.linalg.inv(self.linear)
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)

    def corners(self) -> Floats:
        return self.vertices()[self.shape.faces]

    def facing(self, light: Floats) -> Floats:
        return (self.normals() @ light)[self.shape.faces]

    def colours(self, faces: Faces, shares: Floats, points: Floats, pixels: Floats) -> Floats:
        return self.texture(self.local(points))

    def moved(self, linear: Floats, offset: Floats) -> Part:
        """The same part after p -> linear p + offset."""
        return Part(self.shape, self.texture, linear @ self.linear, linear @ self.offset + offset)


@dataclass(frozen=True)
class Scene:
    """An object made of parts, inside the sphere of radius `OBJECT_RADIUS` around the origin."""

    parts: tuple[Part, ...]

    def inside(self, points: Floats) -> NDArray[np.bool_]:
        """Whether each of the points (N, 3) lies inside the object, (N,)."""
        return np.any([part.shape.inside(part.local(points)) for part in self.parts], axis=0)

    def turned(self, angle: float) -> Scene:
        """The object rotated about the z axis by `angle` (radians) from x towards y."""
        turn = Rotation.from_euler("z", angle).as_matrix()
        return Scene(tuple(part.moved(turn, np.zeros(3)) for part in self.parts))

    def mesh(self) -> trimesh.Trimesh:
        """All surfaces with vertex colours, including those inside other parts."""
        meshes = []
        for part in self.parts:
            colours = (255 * part.texture(part.shape.vertices)).round().astype(np.uint8)
            meshes.append(
                trimesh.Trimesh(part.vertices(), part.shape.faces, vertex_colors=colours, process=False)
            )
        return cast(trimesh.Trimesh, trimesh.util.concatenate(meshes))

    def surface_points(self, count: int, seed: int = 0) -> Floats:
        """About `count` points (N, 3) spread evenly over the outer surface (for the Chamfer distance)."""
        mesh = self.mesh()
        points, faces = trimesh.sample.sample_surface(mesh, 3 * count, seed=seed)
        outer = ~self.inside(points + 1e-3 * mesh.face_normals[faces])
        return np.asarray(points)[outer][:count]


def random_scene(seed: int) -> Scene:
    """The procedural object of this seed; the embedded prior was trained on seeds below `HELD_OUT` only."""
    rng = np.random.default_rng(seed)
    make = KINDS[rng.choice(len(KINDS), p=SHARES)]
    parts = make(rng)
    turn = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi))
    if make in TUMBLED:
        turn = Rotation.random(rng=rng)
    parts = [part.moved(turn.as_matrix(), np.zeros(3)) for part in parts]
    points = np.concatenate([part.vertices() for part in parts])
    centre = (points.min(0) + points.max(0)) / 2
    scale = OBJECT_RADIUS / np.linalg.norm(points - centre, axis=1).max()
    return Scene(tuple(part.moved(scale * np.eye(3), -scale * centre) for part in parts))


def _part(
    shape: Shape,
    size: Floats | float,
    at: Floats | tuple[float, ...],
    texture: Texture,
    turn: Rotation | None = None,
) -> Part:
    turn = turn or Rotation.identity()
    return Part(shape, texture, turn.as_matrix() * np.broadcast_to(size, 3), np.asarray(at, float))


def _one_of(rng: np.random.Generator, *choices: Shape) -> Shape:
    return choices[rng.integers(len(choices))]


def _solid(rng: np.random.Generator) -> Shape:
    makers = (
        shapes.box,
        shapes.ball,
        shapes.cylinder,
        shapes.cone,
        lambda: shapes.torus(rng.choice([0.2, 0.3, 0.4])),
    )
    return makers[rng.choice(5, p=[0.28, 0.22, 0.2, 0.15, 0.15])]()


def _quarter_turn(rng: np.random.Generator) -> Rotation:
    return Rotation.from_euler("xyz", rng.integers(0, 4, 3) * np.pi / 2)


def _scatter(rng: np.random.Generator) -> list[Part]:
    """A body with two to five smaller shapes attached to it."""
    size = rng.uniform(0.35, 0.9, 3)
    parts = [_part(_solid(rng), size, np.zeros(3), random_texture(rng))]
    for _ in range(rng.integers(2, 6)):
        direction = rng.normal(size=3)
        at = size * direction / np.linalg.norm(direction)
        turn = Rotation.random(rng=rng) if rng.uniform() < 0.4 else _quarter_turn(rng)
        parts.append(_part(_solid(rng), rng.uniform(0.15, 0.5, 3), at, random_texture(rng), turn))
    return parts


def _tower(rng: np.random.Generator) -> list[Part]:
    """A stack of shapes, not quite aligned."""
    parts, height = [], 0.0
    for _ in range(rng.integers(1, 5)):
        size = np.append(rng.uniform(0.3, 0.8, 2), rng.uniform(0.15, 0.5))
        at = np.append(rng.uniform(-0.2, 0.2, 2), height + size[2])
        shape = _one_of(rng, shapes.box(), shapes.ball(), shapes.cylinder())
        parts.append(_part(shape, size, at, random_texture(rng)))
        height += 1.8 * size[2]
    top = rng.uniform(0.2, 0.5, 3)
    parts.append(_part(_solid(rng), top, (0, 0, height + 0.9 * top[2]), random_texture(rng)))
    return parts


def _legged(rng: np.random.Generator) -> list[Part]:
    """A table, chair or animal: a body on four legs, with a back or a head at one end."""
    length, width, thickness = rng.uniform(0.6, 1.0), rng.uniform(0.35, 0.7), rng.uniform(0.08, 0.35)
    leg, foot = rng.uniform(0.25, 0.5), rng.uniform(0.07, 0.14)
    body = shapes.box() if rng.uniform() < 0.5 else shapes.ball()
    parts = [_part(body, np.array([length, width, thickness]), np.zeros(3), random_texture(rng))]
    shape = shapes.box() if rng.uniform() < 0.5 else shapes.cylinder()
    texture = random_texture(rng)
    for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        at = (0.75 * x * length, 0.7 * y * width, -thickness / 2 - leg)
        parts.append(_part(shape, np.array([foot, foot, leg]), at, texture))
    if rng.uniform() < 0.5:
        back = np.array([0.08, width, rng.uniform(0.3, 0.6)])
        parts.append(_part(shapes.box(), back, (-length + 0.08, 0, thickness + back[2]), random_texture(rng)))
    else:
        head = rng.uniform(0.2, 0.35, 3)
        parts.append(_part(_solid(rng), head, (length, 0, thickness + head[2] / 2), random_texture(rng)))
        tail = np.array([0.3, 0.06, 0.06])
        parts.append(_part(shapes.ball(), tail, (-length - 0.15, 0, thickness / 2), random_texture(rng)))
    return parts


def _vehicle(rng: np.random.Generator) -> list[Part]:
    """A hull on wheels with a cabin and something in front."""
    length, width, height = rng.uniform(0.8, 1.1), rng.uniform(0.35, 0.55), rng.uniform(0.18, 0.32)
    wheel, across = rng.uniform(0.18, 0.28), Rotation.from_euler("x", np.pi / 2)
    parts = [_part(shapes.box(), np.array([length, width, height]), np.zeros(3), random_texture(rng))]
    cabin = np.array([rng.uniform(0.25, 0.5), 0.85 * width, rng.uniform(0.15, 0.35)])
    roof = (rng.uniform(-0.4, 0.2), 0, height + cabin[2])
    parts.append(
        _part(_one_of(rng, shapes.box(), shapes.ball(), shapes.cylinder()), cabin, roof, random_texture(rng))
    )
    tyre = random_texture(rng)
    for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        at = (0.6 * x * length, y * (width + 0.03), -height)
        parts.append(_part(shapes.cylinder(), np.array([wheel, wheel, 0.1]), at, tyre, across))
    nose = np.array([0.15, 0.6 * width, 0.6 * height])
    parts.append(_part(_one_of(rng, shapes.ball(), shapes.box()), nose, (length, 0, 0), random_texture(rng)))
    return parts


def _figure(rng: np.random.Generator) -> list[Part]:
    """A trunk with head, face, arms and legs."""
    trunk = np.array([rng.uniform(0.2, 0.35), rng.uniform(0.3, 0.5), rng.uniform(0.4, 0.6)])
    head, limb = rng.uniform(0.2, 0.32), rng.uniform(0.09, 0.14)
    skin, cloth = random_texture(rng), random_texture(rng)
    parts = [_part(_one_of(rng, shapes.box(), shapes.ball(), shapes.cylinder()), trunk, np.zeros(3), cloth)]
    top = trunk[2] + 0.9 * head
    parts.append(_part(shapes.ball(), head, (0, 0, top), skin))
    parts.append(
        _part(
            _one_of(rng, shapes.ball(), shapes.cone()), 0.35 * head, (0.95 * head, 0, top), random_texture(rng)
        )
    )
    trousers = random_texture(rng)
    for side in (-1, 1):
        lift = Rotation.from_euler("x", side * rng.uniform(0.1, 2.2))
        reach = lift.apply((0, 0, -0.4))
        at = np.array([0, side * trunk[1], 0.7 * trunk[2]]) + reach
        parts.append(_part(shapes.ball(), np.array([limb, limb, 0.45]), at, skin, lift))
        at = np.array([0, 0.5 * side * trunk[1], -trunk[2] - 0.3])
        parts.append(_part(shapes.cylinder(), np.array([limb, limb, 0.4]), at, trousers))
    return parts


def _blob(rng: np.random.Generator) -> list[Part]:
    """A smooth body, often with a few small shapes on it."""
    body = shapes.metaballs(rng)
    parts = [_part(body, 1.0, np.zeros(3), random_texture(rng))]
    for vertex in rng.choice(body.vertices, rng.integers(0, 4)):
        parts.append(
            _part(_solid(rng), rng.uniform(0.08, 0.2), vertex, random_texture(rng), Rotation.random(rng=rng))
        )
    return parts


def _sign(rng: np.random.Generator) -> list[Part]:
    """A plate with one letter in relief in front and another one behind, on a foot."""
    front, back = (shapes.letter_mask(letter) for letter in rng.choice(list(shapes.LETTERS), 2, replace=False))
    ground, ink = random_colour(rng), random_colour(rng)
    while np.abs(ground - ink).sum() < 0.7:
        ink = random_colour(rng)

    def pattern(points: Floats) -> Floats:
        x, y, z = points.T
        return np.where(y < 0, shapes.sample_mask(front, x, z), shapes.sample_mask(back, -x, z))

    size = np.array([rng.uniform(0.6, 1.0), rng.uniform(0.15, 0.4), rng.uniform(0.8, 1.0)])
    parts = [
        _part(shapes.plate(front, back, 0.4), size, np.zeros(3), Texture(np.stack([ground, ink]), pattern))
    ]
    foot = np.array([rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.7), 0.1])
    parts.append(
        _part(_one_of(rng, shapes.box(), shapes.cylinder()), foot, (0, 0, -size[2] - 0.1), random_texture(rng))
    )
    return parts


PartsMaker = Callable[[np.random.Generator], list[Part]]
KINDS: tuple[PartsMaker, ...] = (_scatter, _tower, _legged, _vehicle, _figure, _blob, _sign)
SHARES = (0.26, 0.12, 0.12, 0.12, 0.1, 0.14, 0.14)
TUMBLED = (_scatter, _blob)  # kinds without an upper side
