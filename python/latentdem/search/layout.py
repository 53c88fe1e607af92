"""How a photograph is divided: its padded grid, the window of the kernel search, and the tiles."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from latentdem_ext.vae import Window, tile_windows

from ..solver.frame import Frame
from ..solver.measurement import Measurement

WORKING_SIZE = 384  # pixels a side: photographs that need a larger grid are restored in tiles
TILE_SIZE = 640  # pixels a side of a tile's padded grid at most; of small tiles, more is frame and overlap
OVERLAP = 64  # pixels that neighbouring tiles share at most
GRID_MULTIPLE = 32  # of padded grids: small factors for FFTs, whole latents at half size
VARYING_SIZE = 256  # the same where the blur varies: a tile has one kernel
REGION_SIZE = 1536  # pixels a side of the part of a larger photograph that the search for the kernel sees
SEARCH_SIZE = 256  # pixels a side of the window in which the kernel of a larger photograph is found


@dataclass(frozen=True)
class Layout:
    """How photographs of height x width pixels are divided for a K x K kernel.

    A window or tile is not circular, even in a circular photograph. Tiles are smaller where blur is `varying`.
    """

    height: int
    width: int
    kernel_size: int
    circular: bool
    varying: bool = False

    @classmethod
    def of(cls, measurement: Measurement, kernel_size: int) -> Layout:
        """That of a measurement."""
        return cls(*measurement.size, kernel_size, measurement.circular)

    @property
    def frame(self) -> Frame:
        """The padded grid of a whole photograph."""
        if self.circular:
            return Frame.circular(self.height, self.width)
        return self.frame_of_part(self.height, self.width)

    def frame_of_part(self, rows: int, columns: int) -> Frame:
        """The padded grid of a window or tile."""
        return Frame.extended(rows, columns, self.kernel_size, GRID_MULTIPLE)

    @property
    def fits(self) -> bool:
        """Whether a photograph is restored as a whole."""
        return not self.varying and max(self.frame.grid) <= WORKING_SIZE

    @property
    def search_size(self) -> int:
        """Pixels a side of the window in which the kernel is found."""
        return max(SEARCH_SIZE, 2 * self.kernel_size)

    @property
    def _largest_tile(self) -> int:
        """Most pixels a side of a tile."""
        most = TILE_SIZE - self.kernel_size + 1
        if self.varying:  # several tiles in small photographs, too
            most = min(VARYING_SIZE - self.kernel_size + 1, min(self.height, self.width) * 2 // 3)
        return max(most, 2 * self.kernel_size)

    @property
    def tile_size(self) -> tuple[int, int]:
        """Height and width of the tiles: as few as cover the photograph, on the smallest grids that they fit.

        Tiles fill their grids, as the least squares of a tile take the longer the wider the frame around it.
        """
        most, shared = self._largest_tile, self.overlap

        def side(length: int) -> int:
            count = max(1, -(-(length - shared) // (most - shared)))
            least = -(-(length + (count - 1) * shared) // count)
            return min(self.frame_of_part(least, least).grid[0] - self.kernel_size + 1, length)

        # Where blur varies, tiles have the size that one kernel suffices for.
        return (most, most) if self.varying else (side(self.height), side(self.width))

    @property
    def overlap(self) -> int:
        """Pixels that neighbouring tiles share at least."""
        return min(self._largest_tile // 6, OVERLAP)

    @property
    def grids(self) -> tuple[tuple[int, int], int]:
        """Size of the grid that the kernel is searched on, and the pixels of all grids to restore."""
        if self.fits:
            return self.frame.grid, self.frame.pixels
        window = self.frame_of_part(*(min(self.search_size, n) for n in (self.height, self.width)))
        tiles = tile_windows(self.height, self.width, self.tile_size, self.overlap)
        parts = (self.frame_of_part(r.stop - r.start, c.stop - c.start).pixels for r, c in tiles)
        return window.grid, sum(parts)


def informative_window(y: Tensor, size: int, kernel_size: int) -> Window:
    """The window of at most `size` x `size` pixels that tells most about the blur.

    A blur is seen where there are edges in every direction: the window with the largest smaller eigenvalue of
    the structure tensor, of the measurement smoothed over an eighth of the kernel so that noise does not
    count. Clipped pixels (within 1 % of black or white) break the linear model, so they count against it.

    Args:
        y: (1, C, H, W) in [-1, 1].
        size: side of the window; a smaller image is returned whole along that axis.
        kernel_size: K.
    """
    height, width = y.shape[-2:]
    rows, columns = min(size, height), min(size, width)
    if (rows, columns) == (height, width):
        return slice(0, height), slice(0, width)
    grey = y.mean(1, keepdim=True)
    smoothing = max(1, kernel_size // 8)
    smooth = F.avg_pool2d(F.pad(grey, (smoothing,) * 4, mode="replicate"), 2 * smoothing + 1, stride=1)
    dy, dx = (F.pad(smooth.diff(dim=d), p) for d, p in ((-2, (0, 0, 0, 1)), (-1, (0, 1, 0, 0))))
    clipped = ((y.abs() > 0.99).float().mean(1, keepdim=True)) * 2
    stride = max(1, min(rows, columns) // 16)

    def window_mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, (rows, columns), stride=stride)

    xx, yy, xy = window_mean(dx * dx), window_mean(dy * dy), window_mean(dx * dy)
    smaller = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    score = smaller * (1 - window_mean(clipped)).clamp_min(0)
    best = int(score.argmax())
    top, left = best // score.shape[-1] * stride, best % score.shape[-1] * stride
    return slice(top, top + rows), slice(left, left + columns)
