"""Shapes that procedural objects are made of: triangles with normals, and tests of which points are inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import marching_cubes

from .textures import Floats

LETTER_GRID = 24  # vertices of a letter's relief along one side
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789&?!#%"
SHARP = np.radians(35)  # angle above which neighbouring faces have a sharp edge between them


@dataclass(frozen=True)
class Shape:
    """A closed surface and the set of points inside it, about as large as [-1, 1]^3.

    Attributes:
        vertices: (V, 3).
        faces: (F, 3) indices, counter-clockwise seen from outside.
        normals: (V, 3) normals of the vertices, for shading.
        inside: maps points (N, 3) to whether each is inside, (N,).
    """

    vertices: Floats
    faces: NDArray[np.integer]
    normals: Floats
    inside: Callable[[Floats], NDArray[np.bool_]]


def _shaded(mesh: trimesh.Trimesh, inside: Callable[[Floats], NDArray[np.bool_]]) -> Shape:
    """A shape whose normals are smooth except across sharp edges."""
    mesh = trimesh.graph.smooth_shade(mesh, angle=SHARP)
    return Shape(np.array(mesh.vertices), np.array(mesh.faces), np.array(mesh.vertex_normals), inside)


@lru_cache
def box() -> Shape:
    """The cube [-1, 1]^3."""
    return _shaded(trimesh.creation.box((2, 2, 2)), lambda p: np.abs(p).max(1) < 1)


@lru_cache
def ball() -> Shape:
    """The unit ball."""
    return _shaded(trimesh.creation.icosphere(subdivisions=3), lambda p: (p**2).sum(1) < 1)


@lru_cache
def cylinder() -> Shape:
    """Cylinder of radius 1 around the z axis, z in [-1, 1]."""
    mesh = trimesh.creation.cylinder(radius=1, height=2, sections=40)
    return _shaded(mesh, lambda p: (np.hypot(p[:, 0], p[:, 1]) < 1) & (np.abs(p[:, 2]) < 1))


@lru_cache
def cone() -> Shape:
    """Cone with radius 1 at z = -1 and its tip at z = 1."""
    mesh = trimesh.creation.cone(radius=1, height=2, sections=40)
    mesh.apply_translation((0, 0, -1))
    return _shaded(mesh, lambda p: (np.hypot(p[:, 0], p[:, 1]) < (1 - p[:, 2]) / 2) & (p[:, 2] > -1))


@lru_cache
def torus(tube: float) -> Shape:
    """Torus around the z axis, with outer radius 1 and a tube of radius `tube`."""
    mesh = trimesh.creation.torus(1 - tube, tube, major_sections=40, minor_sections=20)
    return _shaded(mesh, lambda p: (np.hypot(p[:, 0], p[:, 1]) - 1 + tube) ** 2 + p[:, 2] ** 2 < tube**2)


def metaballs(rng: np.random.Generator) -> Shape:
    """A smooth body: where the sum of three to six random Gaussians is above a half."""
    count = int(rng.integers(3, 7))
    centres, widths = rng.uniform(-0.45, 0.45, (count, 3)), rng.uniform(0.3, 0.45, count)

    def field(points: Floats) -> Floats:
        squared = ((points[:, None] - centres) ** 2).sum(2)
        return np.exp(-squared / widths**2).sum(1) - 0.5

    side = np.linspace(-1.3, 1.3, 30)
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3)
    values = field(grid).reshape(30, 30, 30).astype(np.float32)
    vertices, faces, normals, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
    return Shape(vertices * (side[1] - side[0]) - 1.3, faces, normals, lambda p: field(p) > 0)


@lru_cache(maxsize=len(LETTERS))
def letter_mask(letter: str) -> Floats:
    """Mask (4 G, 4 G) of a letter in [0, 1], G = `LETTER_GRID`; rows go down."""
    side = 4 * LETTER_GRID
    picture = Image.new("L", (side, side))
    font = ImageFont.load_default(size=0.92 * side)
    ImageDraw.Draw(picture).text((side / 2, side / 2), letter, fill=255, font=font, anchor="mm", stroke_width=2)
    return np.asarray(picture, np.float64) / 255


def sample_mask(mask: Floats, across: Floats, up: Floats) -> Floats:
    """Nearest pixels (N,) of a mask that covers [-1, 1]^2 at coordinates (N,) each."""
    side = len(mask)
    column = np.clip(((across + 1) / 2 * side).astype(int), 0, side - 1)
    row = np.clip(((1 - up) / 2 * side).astype(int), 0, side - 1)
    return mask[row, column]


def plate(front: Floats, back: Floats, raised: float) -> Shape:
    """A slab in the xz plane with `front` in relief towards -y and `back` towards +y.

    Args:
        front, back: masks as returned by `letter_mask`, each read from its own side.
        raised: height of the relief, as a share of half the thickness.
    """
    side = np.linspace(-1, 1, LETTER_GRID)
    across, up = (a.ravel() for a in np.meshgrid(side, side, indexing="xy"))
    # The outermost ring is flat, so that the two sides join.
    inner = (np.abs(across) < 1) & (np.abs(up) < 1)

    def depth(mask: Floats, across: Floats, up: Floats) -> Floats:
        return 1 - raised + raised * sample_mask(mask, across, up)

    front_y, back_y = depth(front, across, up), depth(back, -across, up)
    front_y[~inner] = back_y[~inner] = 1 - raised
    vertices = np.concatenate([np.stack([across, -front_y, up], 1), np.stack([across, back_y, up], 1)])
    corner = np.arange(LETTER_GRID**2).reshape(LETTER_GRID, LETTER_GRID)
    a, b, c, d = (q.ravel() for q in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]))
    sheet = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    ring = np.concatenate([corner[0], corner[1:, -1], corner[-1, -2::-1], corner[-2:0:-1, 0]])
    following, far = np.roll(ring, -1), LETTER_GRID**2
    rim = np.concatenate(
        [np.stack([ring, ring + far, following + far], 1), np.stack([ring, following + far, following], 1)]
    )
    mesh = trimesh.Trimesh(vertices, np.concatenate([sheet, sheet[:, ::-1] + far, rim]), process=False)

    def inside(p: Floats) -> NDArray[np.bool_]:
        within = (np.abs(p[:, [0, 2]]) < 1).all(1)
        return within & (-p[:, 1] < depth(front, p[:, 0], p[:, 2])) & (p[:, 1] < depth(back, -p[:, 0], p[:, 2]))

    return _shaded(mesh, inside)
