"""Texture coordinates of a mesh, and the points of its surface that the pixels of a texture show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
import xatlas
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

PADDING = 4  # pixels between two charts


@dataclass(frozen=True)
class Atlas:
    """A mesh cut into flat charts that lie side by side in a texture.

    Attributes:
        vertices: (V,) the vertex of the mesh that each vertex of the atlas is a copy of; a vertex on a seam has
            several.
        faces: (F, 3) indices of the atlas's vertices.
        places: (V, 2) their coordinates in the texture, to the right and up, in [0, 1].
        shape: height and width of the texture in pixels.
        pixels: (P,) indices of the pixels that show the surface, in the flattened texture, from its top row.
        points: (P, 3) the points that they show.
        normals: (P, 3) unit normals of the surface there, interpolated between the vertices.
        corners: (P, 3) vertices of the mesh at the corners of the triangle there.
        shares: (P, 3) barycentric coordinates in that triangle.
    """

    vertices: NDArray[np.int64]
    faces: NDArray[np.int64]
    places: NDArray[np.float32]
    shape: tuple[int, int]
    pixels: NDArray[np.int64]
    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    corners: NDArray[np.int64]
    shares: NDArray[np.float32]

    def picture(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """A texture (H, W, C) of values (P, C); pixels between the charts get the value of the nearest one."""
        height, width = self.shape
        shown = np.zeros(height * width, bool)
        shown[self.pixels] = True
        full = np.zeros((height * width, values.shape[1]), values.dtype)
        full[self.pixels] = values
        row, column = distance_transform_edt(
            ~shown.reshape(self.shape), return_distances=False, return_indices=True
        )
        filled: NDArray[np.floating] = full.reshape(height, width, -1)[row, column]
        return filled


def unwrap(mesh: trimesh.Trimesh, density: float) -> Atlas:
    """Texture coordinates by xatlas.

    Args:
        mesh: the mesh.
        density: pixels of the texture per unit of length.
    """
    cut = xatlas.Atlas()
    cut.add_mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.texels_per_unit, packing.padding = density, PADDING
    cut.generate(pack_options=packing)
    vertices, faces, places = cut.get_mesh(0)
    vertices, faces = vertices.astype(np.int64), faces.astype(np.int64)
    places[:, 1] = 1 - places[:, 1]
    height, width = cut.height, cut.width
    # Rays through the flat charts find the triangle that each pixel shows.
    flat = np.concatenate([places * (width, height), np.zeros((len(places), 1))], 1)
    scene = EmbreeScene()
    TriangleMesh(scene, flat[faces].astype(np.float32))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    heights = height - rows.ravel() - 0.5
    origins = np.stack([columns.ravel() + 0.5, heights, np.ones(height * width)], 1).astype(np.float32)
    hits = scene.run(origins, np.broadcast_to(np.array([0, 0, -1], np.float32), origins.shape).copy(), output=1)
    pixels = np.flatnonzero(hits["primID"] >= 0)
    u, v = hits["u"][pixels, None], hits["v"][pixels, None]
    shares = np.concatenate([1 - u - v, u, v], 1).astype(np.float32)
    corners = vertices[faces[hits["primID"][pixels]]]

    def between(values: NDArray[np.floating]) -> NDArray[np.float32]:
        return (values[corners] * shares[..., None]).sum(1).astype(np.float32)

    normals = between(mesh.vertex_normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    points = between(mesh.vertices)
    return Atlas(
        vertices, faces, places.astype(np.float32), (height, width), pixels, points, normals, corners, shares
    )
