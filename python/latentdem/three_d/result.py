"""What a reconstruction returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    import trimesh
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Reconstruction:
    """Poses of the known views, and new ones; poses are (polar, azimuth, radius), angles in radians.

    Attributes:
        inputs: (n, 3, S, S) the known views as the prior saw them, in [-1, 1] on white.
        poses: (n, 3) of these relative to the first.
        confidence: (n,) probability that a pose is better than the other hypotheses; 1 for the first view.
        targets: (K, 3) poses of the new views relative to the first known one.
        views: (K, 3, S, S) new views in [-1, 1].
        cut: (n,) for each input whether it was told from its background.
        masks: (S, S) in [0, 1] for each input, the share of each pixel that the object covers; None where it
            was not cut out.
        seconds: wall-clock seconds per phase.
        settings: everything needed to repeat the run.
        polar: polar angle of the first view in radians, of a prior that has to estimate it; None of others.
        filled: (N, N, N) in [0, 1], how likely the object is at `cameras.grid_points`, the first view being at
            azimuth 0, of a prior that says so; None of others.
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

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """The object with vertex colours, z pointing up, fitted to all views when it is first asked for.

        That takes about half a minute; `meshing.solid_of` fits it with progress, or by Gaussian splatting, and
        `surface.write_mesh` writes it.

        Raises:
            UserError: packages are missing, or the views show no object.
        """
        from .mesh.meshing import solid_of

        return solid_of(self).mesh

    def plot(self) -> Figure:
        """Figure of inputs, estimated cameras seen from above, and new views."""
        from .output.figure import plot_views

        return plot_views(self)
