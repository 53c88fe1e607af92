"""Meshes with vertex colours, from views of an object and their cameras."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from scipy.ndimage import binary_erosion, binary_fill_holes, distance_transform_edt
from skimage.measure import marching_cubes
from torch import Tensor

from ...errors import UserError
from ...io.files import atomic_path
from ..geometry.cameras import EXTENT
from .hull import PosedViews, SurfaceField
from .splats import check_splats, fit_splats
from .volume import fit_volume

SURFACES = {"volume": fit_volume, "gsplat": fit_splats}
FORMATS = (".glb", ".obj", ".ply")
WHITE_TOLERANCE = 0.06  # a pixel shows the object if some channel differs from white by more than this


def fit_surface(
    views: Tensor,
    cameras: Tensor,
    masks: Tensor | None = None,
    weights: Tensor | None = None,
    filled: Tensor | None = None,
    *,
    surface: str = "volume",
    resolution: int = 64,
    max_faces: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> trimesh.Trimesh:
    """Fits the surface of an object, in one piece and with vertex colours, in the coordinates of the cameras.

    Args:
        views: (V, 3, S, S) in [-1, 1], on white.
        cameras: (V, 3), polar angle, azimuth and radius of each view (see cameras.py).
        masks: (V, S, S) in [0, 1], the share of each pixel that the object covers; None to find it from the
            white background.
        weights: (V,) weights of the views, for instance larger ones for photographs; None for equal weights.
        filled: (N, N, N) probability in [0, 1] that the object is at each point of `cameras.grid_points`, if a
            prior predicts it; used by the surface "volume".
        surface: "volume", a signed-distance field on a grid, or "gsplat", Gaussian splatting on a CUDA device.
        resolution: grid points along one side of the cube that contains the object.
        max_faces: number of triangles that the mesh is reduced to, approximately; None to keep them all.
        progress: called as progress("surface", steps done, all steps).

    Raises:
        UserError: shapes do not match, the surface is unknown, no view shows an object, or a package is
            missing.
    """
    check_surface(surface)
    posed = posed_views(views, cameras, masks, weights, filled)
    field = SURFACES[surface](posed, resolution, progress)
    return extract_mesh(field, max_faces)


def check_surface(surface: str) -> None:
    """Makes sure that `fit_surface` can fit this surface.

    Raises:
        UserError: the surface is unknown, or a package or device that it needs is missing.
    """
    if surface not in SURFACES:
        raise UserError(f"No surface '{surface}'; give one of {', '.join(SURFACES)}.")
    if surface == "gsplat":
        check_splats()


def posed_views(
    views: Tensor,
    cameras: Tensor,
    masks: Tensor | None = None,
    weights: Tensor | None = None,
    filled: Tensor | None = None,
) -> PosedViews:
    """Checked and normalised views that a surface is fitted to; for arguments and errors see `fit_surface`."""
    count, size = len(views), views.shape[-1]
    if views.shape != (count, 3, size, size) or count == 0:
        raise UserError(f"Views have the shape (V, 3, S, S), not {tuple(views.shape)}; crop them to squares.")
    if cameras.shape != (count, 3):
        raise UserError(f"{count} views need cameras of the shape ({count}, 3), not {tuple(cameras.shape)}.")
    colours = ((views.detach().cpu().float() + 1) / 2).clamp(0, 1)
    masks = mask_on_white(views) if masks is None else masks.detach().cpu().float()
    if masks.shape != (count, size, size):
        raise UserError(f"The masks must have the shape {(count, size, size)}, not {tuple(masks.shape)}.")
    weights = torch.ones(count) if weights is None else weights.detach().cpu().float()
    if weights.shape != (count,) or weights.min() < 0 or not weights.sum() > 0:
        raise UserError(f"The weights must be {count} numbers, none negative and not all zero.")
    if not masks.max() > 0.5:
        raise UserError(
            "No object was found in the views; give views of an object on a white ground, or masks."
        )
    if filled is not None and (filled.ndim != 3 or len(set(filled.shape)) > 1):
        raise UserError(f"What is filled must have the shape (N, N, N), not {tuple(filled.shape)}.")
    return PosedViews(colours, masks, cameras.detach().cpu().float(), weights / weights.mean(), filled)


def mask_on_white(views: Tensor) -> Tensor:
    """Share (V, S, S) in [0, 1] of each pixel that an object covers, in views (V, 3, S, S) in [-1, 1].

    The object consists of all pixels that differ from the white background and of those enclosed by them. A
    pixel at its edge is a mixture C = a c + (1 - a) with the colour c of the nearest inner pixel, which gives
    a.
    """
    ink = (1 - views.detach().cpu().float()) / 2
    masks = []
    for picture in ink.numpy():
        shown = binary_fill_holes(picture.max(0) > WHITE_TOLERANCE)
        core = binary_erosion(shown, np.ones((3, 3)))
        if not core.any():
            masks.append(shown.astype(np.float32))
            continue
        nearest = distance_transform_edt(~core, return_distances=False, return_indices=True)
        inside = picture[:, nearest[0], nearest[1]]
        share = (picture * inside).sum(0) / np.maximum((inside**2).sum(0), WHITE_TOLERANCE**2)
        masks.append(np.where(core, 1, shown * share.clip(0, 1)).astype(np.float32))
    return torch.from_numpy(np.stack(masks))


def extract_mesh(field: SurfaceField, max_faces: int | None = None) -> trimesh.Trimesh:
    """The largest connected piece of the surface of a field, closed, with vertex colours.

    Args:
        field: distances and colours on a grid.
        max_faces: number of triangles that the mesh is reduced to, approximately; None to keep them all.

    Raises:
        UserError: the field has no surface, or `max_faces` is given without the package fast-simplification.
    """
    # An outer layer closes a surface that reaches the end of the grid.
    distance = F.pad(field.distance, (1,) * 6, value=1).numpy()
    if not distance.min() < 0:
        raise UserError("The views have no surface in common; check that cameras and views belong together.")
    vertices, faces, _, _ = marching_cubes(distance, 0, gradient_direction="descent")
    voxel = 2 * EXTENT / (len(field.distance) - 1)
    mesh = trimesh.Trimesh((vertices - 1) * voxel - EXTENT, faces)
    with np.errstate(invalid="ignore", divide="ignore"):  # flat fragments have no centre of mass
        mesh = max(mesh.split(only_watertight=False), key=lambda piece: abs(piece.volume))
    if max_faces is not None and len(mesh.faces) > max_faces:
        if find_spec("fast_simplification") is None:
            raise UserError(
                "Fewer triangles need another package: pip install fast-simplification, or keep them all."
            )
        mesh = mesh.simplify_quadric_decimation(face_count=max_faces)
    points = torch.from_numpy(np.ascontiguousarray(mesh.vertices[:, ::-1])).float() / EXTENT
    grid = field.colour.movedim(-1, 0)[None]
    colours = F.grid_sample(grid, points[None, None, None], padding_mode="border", align_corners=True)
    colours = (255 * colours[0, :, 0, 0].T).round().to(torch.uint8)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colours.numpy())


def write_mesh(mesh: trimesh.Trimesh, path: str | Path) -> None:
    """Writes a mesh with its colours as glTF (.glb), Wavefront (.obj) or Stanford (.ply), by the name's ending.

    The file is written atomically. The z axis points up; a .glb file, in which the y axis does, is rotated.

    Raises:
        UserError: the ending is another one, or the file cannot be written.
    """
    check_mesh_name(path)
    path = Path(path)
    if path.suffix.lower() == ".glb":
        mesh = mesh.copy()
        mesh.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0)))
    with atomic_path(path) as temporary:
        mesh.export(temporary)


def check_mesh_name(path: str | Path) -> None:
    """Raises a UserError unless a mesh can be written to a file of this name."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"A mesh is written as {', '.join(FORMATS)}, not '{path.suffix}'; rename {path.name}.")
