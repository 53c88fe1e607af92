"""Random crops of the renderings that the view-conditioned prior is trained on, with their cameras."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentdem.three_d.geometry.cameras import FIELD_OF_VIEW
from latentdem.three_d.pictures import FILLED

SMALLEST = 0.65  # smallest scale of an object whose crop shares its scale with a larger view
WHITE = 250  # a pixel shows the object if some channel is darker


class CroppedViews:
    """Crops of views that `_views.render_views` has written, centred on what is visible, as `Crops` does it.

    Args:
        folders: folders of the files; views of all are drawn alike.
    """

    def __init__(self, *folders: Path) -> None:
        views = [np.load(folder / "views.npy") for folder in folders]
        cameras = [np.load(folder / "cameras.npy") for folder in folders]
        made = [~np.isnan(rows).any((1, 2)) for rows in cameras]
        self.views = torch.from_numpy(np.concatenate([v[m] for v, m in zip(views, made, strict=True)]))
        self.views = self.views.flatten(0, 1)
        kept = torch.from_numpy(np.concatenate([c[m] for c, m in zip(cameras, made, strict=True)]))
        self.cameras = kept.flatten(0, 1)
        self.boxes = torch.cat([_boxes(part) for part in self.views.split(4096)])

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Crops (count, 3, S, S) in [-1, 1], of random scales, and their cameras (count, 5), see `crops_of`."""
        rows = torch.randint(len(self.views), (count,))
        pictures, size = self.views[rows].movedim(-1, 1).float() / 127.5 - 1, self.views.shape[1]
        left, top, right, bottom = self.boxes[rows].float().unbind(1)
        camera = self.cameras[rows]
        middle = torch.stack([(left + right) / 2, (top + bottom) / 2], 1)
        scale = SMALLEST + (1 - SMALLEST) * torch.rand(count)
        side = torch.maximum(right - left, bottom - top) / FILLED / scale
        return _cropped(pictures, middle, side), _cameras(camera, middle, side, size)


def _boxes(views: Tensor) -> Tensor:
    """First column and row that show the object, and those after the last ones, (N, 4), of views on white."""
    shown = views.amin(-1) < WHITE
    ends = []
    for line in (shown.any(1), shown.any(2)):
        ends.append((line.int().argmax(1), line.shape[1] - line.flip(1).int().argmax(1)))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], 1)


def _cropped(pictures: Tensor, middle: Tensor, side: Tensor) -> Tensor:
    """Squares with these middles (N, 2) and sides (N,) in pixels of pictures (N, 3, S, S), in that size."""
    size = pictures.shape[-1]
    maps = torch.zeros(len(pictures), 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = side / size
    maps[:, :, 2] = 2 * middle / size - 1
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures - 1, grid, align_corners=False) + 1


def _cameras(camera: Tensor, middle: Tensor, side: Tensor, size: int) -> Tensor:
    """Cameras (N, 5) of such squares of pictures of `size` pixels from cameras (N, 3)."""
    pixel = 2 * camera[:, 2] * math.tan(FIELD_OF_VIEW / 2) / size  # in the world, at the origin
    right, up = ((size / 2 - middle) * pixel[:, None] * torch.tensor([1.0, -1.0])).unbind(1)
    return torch.stack([camera[:, 0], camera[:, 1], camera[:, 2] * side / size, right, up], 1)
