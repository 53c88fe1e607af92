"""The fit of a mesh to views of relative poses, and checks that it will be possible."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import UserError
from ..geometry.cameras import RADIUS
from ..pictures import Picture

if TYPE_CHECKING:
    import trimesh

NEEDED = {
    "trimesh": "trimesh",
    "scipy": "scipy",
    "fast_simplification": "fast-simplification",
    "embreex": "embreex",
    "xatlas": "xatlas",
}
MAX_FACES = 5000


@dataclass(frozen=True)
class Solid:
    """A reconstructed object.

    Attributes:
        mesh: closed mesh with vertex colours; z points up.
        camera: (3,) camera of view 1 in the coordinates of the mesh, at azimuth 0 with an estimated polar
            angle.
        seconds: duration of the fit.
        textured: the mesh with a texture from the pictures of the object, if there are any.
    """

    mesh: trimesh.Trimesh
    camera: Tensor
    seconds: float
    textured: trimesh.Trimesh | None = None


def check_mesh(surface: str, path: str | Path | None = None) -> None:
    """Makes sure, before a long computation, that a mesh can be made by this surface and written to `path`.

    Args:
        surface: see `surface.fit_surface`.
        path: file of the mesh.

    Raises:
        UserError: packages or a device are missing, or the surface or the name's ending is not known.
    """
    missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise UserError(
            f"A mesh needs {', '.join(missing)}; install with: pip install {' '.join(missing)} (in a clone, "
            'pip install -c constraints.txt ".[three-d]" brings them and the weights of the prior).'
        )
    from .surface import check_mesh_name, check_surface

    check_surface(surface)
    if path is not None:
        check_mesh_name(path)


def fit_solid(
    views: Tensor,
    poses: Tensor,
    masks: Sequence[Tensor | None],
    weights: Tensor,
    polar: float | None = None,
    filled: Tensor | None = None,
    pictures: Sequence[Picture] = (),
    *,
    surface: str = "volume",
    progress: Callable[[str, int, int], None] | None = None,
) -> Solid:
    """Fits a surface to views whose poses are relative to view 1.

    Args:
        views: (V, 3, S, S) in [-1, 1], on white.
        poses: (V, 3) poses relative to view 1.
        masks: (S, S) in [0, 1] for each view, the share of each pixel that the object covers; None where it is
            to be found from the white background.
        weights: (V,) weights of the views.
        polar: polar angle of view 1 in radians; None for the one at which the silhouettes fit best.
        filled: see `fit_surface`.
        pictures: the first of the views, of any one size, whose outlines and colours the textured mesh has.
        surface: "volume" or "gsplat", see `fit_surface`.
        progress: called as progress("surface", steps done, all steps).

    Raises:
        UserError: see `check_mesh`, or the views show no object.
    """
    started = time.perf_counter()
    check_mesh(surface)
    from .first_camera import estimate_first_camera
    from .surface import fit_surface, mask_on_white, posed_views

    all_masks = mask_on_white(views)
    for row, mask in enumerate(masks):
        if mask is not None:
            all_masks[row] = mask
    if polar is None:
        first = estimate_first_camera(poses, posed_views(views, poses, all_masks, weights))
    else:
        first = torch.tensor([polar, 0.0, RADIUS])
    mesh = fit_surface(
        views,
        first + poses,
        all_masks,
        weights,
        filled,
        surface=surface,
        max_faces=MAX_FACES,
        progress=progress,
    )
    textured = None
    if pictures:
        from .outlines import meet_outlines
        from .texture import colour_by

        pixels = torch.cat([picture.pixels for picture in pictures])
        own = [mask_on_white(p.pixels)[0] if p.mask is None else p.mask for p in pictures]
        count = len(pictures)
        known = posed_views(pixels, first + poses[:count], torch.stack(own), weights[:count])
        textured = colour_by(meet_outlines(mesh, known), known)
    return Solid(mesh, first, time.perf_counter() - started, textured)
