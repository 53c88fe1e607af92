"""Textures that are pictures, at the fineness that a view can show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .base import Floats

LARGEST = 2048  # pixels along the longer side; larger pictures are reduced when they are read
SMALLEST = 4  # pixels along the shorter side of the coarsest level


class Texture:
    """A picture that is repeated over the plane, with levels of half the size each (Williams 1983).

    Args:
        picture: of any mode; transparency is ignored.
    """

    def __init__(self, picture: Image.Image) -> None:
        picture = picture.convert("RGB")
        picture.thumbnail((LARGEST, LARGEST))
        self.levels: list[NDArray[np.uint8]] = [np.asarray(picture)]
        while min(picture.size) >= 2 * SMALLEST:
            picture = picture.reduce(2)
            self.levels.append(np.asarray(picture))

    @property
    def pixels(self) -> int:
        """Number of pixels of the finest level."""
        height, width, _ = self.levels[0].shape
        return height * width

    def __call__(self, places: Floats, coarseness: Floats) -> Floats:
        """Colours (N, 3) in [0, 1], interpolated between four pixels of the nearest level.

        Args:
            places: (N, 2) to the right and up, with the picture in [0, 1]^2 and its first row at the top.
            coarseness: (N,) pixels of the finest level that should become one.
        """
        level = np.rint(np.log2(np.maximum(coarseness, 1))).astype(int)
        level = np.minimum(level, len(self.levels) - 1)
        colours = np.empty((len(places), 3), np.float32)
        for index in np.unique(level):
            chosen = level == index
            colours[chosen] = _interpolated(self.levels[index], places[chosen])
        return colours


def _interpolated(picture: NDArray[np.uint8], places: Floats) -> Floats:
    height, width, _ = picture.shape
    x, y = places[:, 0] * width - 0.5, (1 - places[:, 1]) * height - 0.5
    left, top = np.floor(x), np.floor(y)
    right_share, lower_share = (x - left)[:, None], (y - top)[:, None]
    columns = [(left.astype(np.int64) + step) % width for step in (0, 1)]
    rows = [(top.astype(np.int64) + step) % height for step in (0, 1)]
    upper, lower = (
        (1 - right_share) * picture[row, columns[0]] + right_share * picture[row, columns[1]] for row in rows
    )
    return ((1 - lower_share) * upper + lower_share * lower) / 255
