"""What an object has to offer to be rendered and to be compared with a reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Faces = NDArray[np.integer]


class Surface(Protocol):
    """Triangles of one material."""

    @property
    def two_sided(self) -> bool:
        """Whether a triangle seen from behind is lit as if its normal pointed towards the camera."""
        ...

    def corners(self) -> Floats:
        """Corners (F, 3, 3) of the triangles: triangle, corner, coordinate."""
        ...

    def facing(self, light: Floats) -> Floats:
        """Component (F, 3) of the normal at each corner of the triangles towards a unit vector `light` (3,)."""
        ...

    def colours(self, faces: Faces, shares: Floats, points: Floats, pixels: Floats) -> Floats:
        """Colours (N, 3) in [0, 1] of points on the surface, without light.

        Args:
            faces: (N,) indices of their triangles.
            shares: (N, 3) their barycentric coordinates.
            points: (N, 3) their coordinates.
            pixels: (N,) the length that a pixel covers there, from which a texture knows how fine it may be.
        """
        ...


class VisibleObject(Protocol):
    """An object inside the sphere of radius `OBJECT_RADIUS` around the origin, z up, as `render` draws it."""

    @property
    def parts(self) -> Sequence[Surface]:
        """The surfaces that it is made of."""
        ...


class MeasuredObject(VisibleObject, Protocol):
    """An object whose volume and outer surface are known, as the measures of an evaluation need it."""

    def inside(self, points: Floats) -> NDArray[np.bool_]:
        """Whether each of the points (N, 3) lies inside the object, (N,)."""
        ...

    def surface_points(self, count: int, seed: int = 0) -> Floats:
        """About `count` points (N, 3) spread evenly over the outer surface."""
        ...
