"""From a reconstruction to a mesh, and what can be said of a mesh before the views are there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import UserError

if TYPE_CHECKING:
    import trimesh

    from ..result import Reconstruction

NEEDED = {"trimesh": "trimesh", "scipy": "scipy", "fast_simplification": "fast-simplification"}
DRAWING = {"embreex": "embreex"}
MAX_FACES = 5000
KNOWN = 2.0  # trust in a known view of certain pose, beside 1 in a generated one


@dataclass(frozen=True)
class Solid:
    """An object as a reconstruction found it.

    Attributes:
        mesh: with vertex colours; z points up.
        camera: (3,) of view 1 in the coordinates of the mesh, at azimuth 0; its polar angle was found.
        seconds: that it took.
    """

    mesh: trimesh.Trimesh
    camera: Tensor
    seconds: float


def check_mesh(surface: str, path: str | Path | None = None, drawn: bool = False) -> None:
    """Makes sure, before a long computation, that a mesh can be made by this surface and written to `path`.

    Args:
        surface: see `surface.fit_surface`.
        path: of the file.
        drawn: whether objects are drawn, too.

    Raises:
        UserError: packages or a device are missing, or the surface or the name's ending is not known.
    """
    needed = {**NEEDED, **DRAWING} if drawn else NEEDED
    missing = [name for module, name in needed.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"A mesh needs {', '.join(missing)}; pip install 'latentdem[three-d]'.")
    from .surface import check_mesh_name, check_surface

    check_surface(surface)
    if path is not None:
        check_mesh_name(path)


def solid_of(
    result: Reconstruction, surface: str = "volume", progress: Callable[[str, int, int], None] | None = None
) -> Solid:
    """The surface that the new views and the known ones show, and the prior's own idea of the object.

    The height of view 1 is the prior's estimate or, where there is none, the one that the silhouettes fit best.
    Known views count by their confidence; one that was not told from its background says nothing of the
    outline and is left out.

    Args:
        result: of `reconstruct`.
        surface: "volume" or "gsplat", see `fit_surface`.
        progress: told ("surface", steps done, steps in all).

    Raises:
        UserError: as `check_mesh`, or the views show no object.
    """
    started = time.perf_counter()
    check_mesh(surface)
    from ..cameras import RADIUS
    from .height import first_camera
    from .surface import fit_surface, mask_on_white, pictures_of

    known = [i for i, cut in enumerate(result.cut) if cut]
    views = torch.cat([result.inputs[known], result.views])
    poses = torch.cat([result.poses[known], result.targets])
    weights = torch.cat([KNOWN * result.confidence[known], torch.ones(len(result.views))])
    masks = mask_on_white(views)
    for row, i in enumerate(known):
        mask = result.masks[i]
        if mask is not None:
            masks[row] = mask
    if result.polar is None:
        first = first_camera(poses, pictures_of(views, poses, masks, weights))
    else:
        first = torch.tensor([result.polar, 0.0, RADIUS])
    mesh = fit_surface(
        views,
        first + poses,
        masks,
        weights,
        result.filled,
        surface=surface,
        max_faces=MAX_FACES,
        progress=progress,
    )
    return Solid(mesh, first, time.perf_counter() - started)
