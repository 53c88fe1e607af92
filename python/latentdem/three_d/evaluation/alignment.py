"""Moves a mesh of unknown coordinates onto an object."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..geometry.cameras import OBJECT_RADIUS
from ..objects.base import Floats, MeasuredObject

_POINTS = 1500
_COARSE, _FINE = 5.0, 0.5  # degrees between the azimuths that are compared
_UPRIGHT = (Rotation.identity(), Rotation.from_euler("x", 90, degrees=True))  # z up, and y up


def aligned(mesh: trimesh.Trimesh, scene: MeasuredObject) -> trimesh.Trimesh:
    """A mesh centred and scaled as the objects are, in the orientation that fits the object best.

    Programs differ in the axis that points up (z or y are tried), in the direction of the first camera and in
    scale. All azimuths are compared by the Chamfer distance of points on both surfaces. Nothing else is fitted,
    so a wrong shape stays wrong.

    Args:
        mesh: in any coordinates.
        scene: the object, whose coordinates the result has.
    """
    points = np.asarray(trimesh.sample.sample_surface(mesh, _POINTS, seed=0)[0])
    truth = scene.surface_points(_POINTS)
    tree = cKDTree(truth)

    def distance(turn: Rotation) -> float:
        moved = _normalised(turn.apply(points), turn.apply(mesh.vertices))
        return float(tree.query(moved)[0].mean() + cKDTree(moved).query(truth)[0].mean())

    coarse = [_about_z(angle) * up for up in _UPRIGHT for angle in np.arange(0.0, 360.0, _COARSE)]
    best = min(coarse, key=distance)
    best = min((_about_z(angle) * best for angle in np.arange(-_COARSE, _COARSE + _FINE, _FINE)), key=distance)
    moved = mesh.copy()
    vertices = best.apply(mesh.vertices)
    moved.vertices = _normalised(vertices, vertices)
    return moved


def _about_z(degrees: float) -> Rotation:
    return Rotation.from_euler("z", degrees, degrees=True)


def _normalised(points: Floats, vertices: Floats) -> Floats:
    """Points (N, 3) moved and scaled so that the mesh of `vertices` (V, 3) is placed as the objects are."""
    centre = (vertices.min(0) + vertices.max(0)) / 2
    return (points - centre) * (OBJECT_RADIUS / np.linalg.norm(vertices - centre, axis=1).max())
