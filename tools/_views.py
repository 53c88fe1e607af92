"""Renderings of procedural objects as memory-mapped training data."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from latentdem.three_d.cameras import OBJECT_RADIUS, random_cameras
from latentdem.three_d.render import on_white, render
from latentdem.three_d.scenes import random_scene

GRID = 32  # points along one side of the cube around an object, in which it is told where the object is


def _one(seed: int, views: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, cameras, and where the object is: bits (GRID^3 / 8,) of points counted along z, y and x."""
    scene, cameras = random_scene(seed), random_cameras(views, torch.Generator().manual_seed(seed))
    line = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * OBJECT_RADIUS
    points = np.stack(np.meshgrid(line, line, line, indexing="ij")[::-1], axis=-1).reshape(-1, 3)
    return on_white(render(scene, cameras, size)), cameras.numpy(), np.packbits(scene.inside(points))


def _open(path: Path, shape: tuple[int, ...], dtype: type, fill: float) -> np.memmap:
    if path.exists():
        array = np.lib.format.open_memmap(path, mode="r+")
        if array.shape != shape:
            raise SystemExit(
                f"{path} has the shape {array.shape}, not {shape}; delete it or ask for its shape."
            )
        return array
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if fill:
        array[:] = fill
    return array


def render_views(folder: Path, first_seed: int, objects: int, views: int, size: int, workers: int) -> None:
    """Writes views.npy (objects, views, size, size, 3) uint8, cameras.npy (objects, views, 3) and solids.npy.

    The last one holds the bits of `_one`. A second call goes on where the first one stopped: the cameras of
    objects that are missing are NaN.
    """
    pictures = _open(folder / "views.npy", (objects, views, size, size, 3), np.uint8, 0)
    cameras = _open(folder / "cameras.npy", (objects, views, 3), np.float32, np.nan)
    solids = _open(folder / "solids.npy", (objects, GRID**3 // 8), np.uint8, 0)
    missing = np.flatnonzero(np.isnan(cameras[:, 0, 0]))
    arguments = ([int(first_seed + i) for i in missing], [views] * len(missing), [size] * len(missing))
    with ProcessPoolExecutor(workers) as pool:
        done = pool.map(_one, *arguments, chunksize=8)
        for i, (picture, camera, solid) in tqdm(
            zip(missing, done, strict=True), total=len(missing), mininterval=5
        ):
            pictures[i], solids[i], cameras[i] = picture, solid, camera
    for array in (pictures, solids, cameras):
        array.flush()


class Views:
    """Pictures and cameras that `render_views` wrote."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        if not all((folder / f"{name}.npy").exists() for name in ("views", "cameras", "solids")):
            raise SystemExit(f"No rendered objects in {folder}; run `train_view_prior.py render` first.")
        self.pictures = np.load(folder / "views.npy", mmap_mode="r")
        self.solids = np.load(folder / "solids.npy", mmap_mode="r")
        self.cameras = torch.from_numpy(np.load(folder / "cameras.npy"))
        if self.cameras.isnan().any():
            raise SystemExit(
                f"The objects in {folder} are not complete; run `train_view_prior.py render` again."
            )
        self.random = np.random.default_rng(seed)

    def images(self, objects: np.ndarray, views: np.ndarray) -> Tensor:
        """(N, 3, S, S) in [-1, 1] of the given views (N,) of the given objects (N,)."""
        pixels = torch.from_numpy(np.stack([self.pictures[o, v] for o, v in zip(objects, views, strict=True)]))
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1

    def batch(self, count: int) -> Tensor:
        """Random images (count, 3, S, S) in [-1, 1]."""
        objects, views, *_ = self.pictures.shape
        return self.images(self.random.integers(objects, size=count), self.random.integers(views, size=count))

    def inside(self, objects: np.ndarray, points: Tensor) -> Tensor:
        """Share (N, ...) of what is around `points` (N, ..., 3) of the world that an object (N,) fills."""
        bits = np.unpackbits(self.solids[objects], axis=1).reshape(-1, 1, GRID, GRID, GRID)
        solid = F.avg_pool3d(torch.from_numpy(bits).to(points), 3, stride=1, padding=1)
        where = points.reshape(len(points), -1, 1, 1, 3) / OBJECT_RADIUS
        return F.grid_sample(solid, where, align_corners=False).view(points.shape[:-1]).clamp(0, 1)

    def groups(self, count: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Objects (count,), a known view of each (count,), and other views to be predicted (count, wanted)."""
        objects, views, *_ = self.pictures.shape
        order = self.random.random((count, views)).argsort(1)
        return self.random.integers(objects, size=count), order[:, 0], order[:, 1 : wanted + 1]
