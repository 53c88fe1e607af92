"""Result of a reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..mesh.solid import Solid, fit_solid
from ..pictures import Picture

if TYPE_CHECKING:
    import trimesh
    from matplotlib.figure import Figure

KNOWN_WEIGHT = 2.0  # weight of a known view of certain pose in the fit of a surface; a generated view has 1


@dataclass(frozen=True)
class Reconstruction:
    """Poses of the known views, and new views; poses are (polar, azimuth, radius), with angles in radians.

    Attributes:
        inputs: (n, 3, S, S) known views as the prior saw them, in [-1, 1] on white.
        poses: (n, 3) poses of the known views relative to the first.
        confidence: (n,) probability that each pose is right (see `CameraObjective.likely_poses`); 1 for view 1.
        targets: (K, 3) poses of the new views relative to the first known one.
        views: (K, 3, S, S) new views in [-1, 1].
        cut: (n,) whether the object was separated from the background of each input.
        masks: (S, S) in [0, 1] for each input, the share of each pixel that the object covers; None if the
            object was not cut out.
        seconds: wall-clock seconds per phase.
        settings: everything needed to repeat the run.
        polar: polar angle of the first view in radians, if the prior estimates it; otherwise None.
        filled: (N, N, N) probability in [0, 1] that the object is at each point of `cameras.grid_points`, with
            the first view at azimuth 0, if the prior predicts it; otherwise None.
        pictures: the known views, framed as in `inputs` but with more pixels if they came from files.
        others: (n, A, 4) other poses of the known views that may be right, see `PosePosterior`.
    """

    inputs: Tensor
    poses: Tensor
    confidence: Tensor
    targets: Tensor
    views: Tensor
    cut: tuple[bool, ...]
    masks: tuple[Tensor | None, ...]
    seconds: dict[str, float]
    settings: dict[str, Any]
    polar: float | None = None
    filled: Tensor | None = None
    pictures: tuple[Picture, ...] = ()
    others: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 4))

    def other_poses(self, view: int, least: float = 0.05) -> list[tuple[Tensor, float]]:
        """Other poses (3,) of a known view that may be right, and their probabilities, the likeliest first.

        Args:
            view: number of the view from 0 on.
            least: poses that are less likely are left out.
        """
        rows = self.others[view] if view < len(self.others) else self.others.flatten(0, 1)
        return [(row[:3], float(row[3])) for row in rows if row[3] >= least]

    def solid(self, surface: str = "volume", progress: Callable[[str, int, int], None] | None = None) -> Solid:
        """Fits a surface to the new views, the known ones and what the prior predicts to be filled.

        Known views are weighted by their confidence; those that were not cut out do not show the outline and
        are left out.

        Args:
            surface: "volume" or "gsplat", see `fit_surface`; the latter on the GPU of this reconstruction.
            progress: called as progress("surface", steps done, all steps).

        Raises:
            UserError: see `check_mesh`, or the views show no object.
        """
        known = [i for i, cut in enumerate(self.cut) if cut]
        place = torch.device(self.settings.get("device", "cpu"))
        with torch.cuda.device(place if place.type == "cuda" else -1):  # -1 for none
            return fit_solid(
                torch.cat([self.inputs[known], self.views]),
                torch.cat([self.poses[known], self.targets]),
                [*(self.masks[i] for i in known), *[None] * len(self.views)],
                torch.cat([KNOWN_WEIGHT * self.confidence[known], torch.ones(len(self.views))]),
                self.polar,
                self.filled,
                [self.pictures[i] for i in known] if self.pictures else (),
                surface=surface,
                progress=progress,
            )

    def detailed(self, solid: Solid, size: int) -> Reconstruction:
        """The same with new views of `size` pixels along one side, which show the detail of the pictures.

        The views stay as they are if they have as many pixels, or if no picture was cut out.

        Args:
            solid: the surface of this reconstruction.
            size: pixels along one side.
        """
        if solid.textured is None or size <= self.views.shape[-1]:
            return self
        from ..mesh.detail import detailed_views

        cameras, known = solid.camera + self.targets, solid.camera + self.poses[list(self.cut)]
        return replace(self, views=detailed_views(self.views, cameras, known, solid.textured, size))

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """Mesh of the object with vertex colours and the z axis up, fitted at the first access.

        The fit takes about half a minute; `solid` reports progress and offers Gaussian splatting, and
        `surface.write_mesh` writes the mesh.

        Raises:
            UserError: packages are missing, or the views show no object.
        """
        return self.solid().mesh

    def plot(self) -> Figure:
        """Figure of the inputs, the estimated cameras seen from above, and the new views."""
        from .figure import plot_views

        sketches = [picture.sketch for picture in self.pictures if picture.sketch is not None]
        return plot_views(self.inputs, self.poses, self.confidence, self.views, self.targets, sketches)


def solid_of(
    result: Reconstruction, surface: str = "volume", progress: Callable[[str, int, int], None] | None = None
) -> Solid:
    """Deprecated form of `Reconstruction.solid`, for `latentdem.three_d.meshing.solid_of`."""
    return result.solid(surface, progress)
