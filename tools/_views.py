"""Renderings of procedural objects as memory-mapped training data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from latentdem.three_d.geometry.cameras import OBJECT_RADIUS, random_cameras
from latentdem.three_d.synthetic.render import on_white, render
from latentdem.three_d.synthetic.scenes import random_scene

GRID = 32  # points along one side of the cube in which the volume of an object is sampled


def _render_object(seed: int, views: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, bits (GRID^3 / 8,) that are 1 at points inside, in the order z, y and x, and cameras."""
    scene, cameras = random_scene(seed), random_cameras(views, torch.Generator().manual_seed(seed))
    line = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * OBJECT_RADIUS
    points = np.stack(np.meshgrid(line, line, line, indexing="ij")[::-1], axis=-1).reshape(-1, 3)
    return on_white(render(scene, cameras, size)), np.packbits(scene.inside(points)), cameras.numpy()


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


def fill(
    folder: Path,
    one: Callable[[int], tuple[np.ndarray, ...]],
    seeds: Sequence[int],
    workers: int,
    **parts: tuple[tuple[int, ...], type],
) -> None:
    """Writes the results of `one` for all seeds, each part into a file `NAME.npy`.

    A second call resumes where the first one stopped: missing rows of the last part are NaN.

    Args:
        folder: folder of the files.
        one: function of a seed that returns the parts.
        seeds: seeds in the order of the rows.
        workers: number of processes.
        parts: shape and dtype of each part by its name.
    """
    last = list(parts)[-1]
    arrays = [
        _open(folder / f"{name}.npy", (len(seeds), *shape), kind, np.nan if name == last else 0)
        for name, (shape, kind) in parts.items()
    ]
    missing = np.flatnonzero(np.isnan(arrays[-1].reshape(len(seeds), -1)[:, 0]))
    with ProcessPoolExecutor(workers) as pool:
        done = pool.map(one, [seeds[i] for i in missing], chunksize=8)
        for i, row in tqdm(zip(missing, done, strict=True), total=len(missing), mininterval=5):
            for array, part in zip(arrays, row, strict=True):
                array[i] = part
    for array in arrays:
        array.flush()


def render_views(folder: Path, first_seed: int, objects: int, views: int, size: int, workers: int) -> None:
    """Writes views.npy (objects, views, size, size, 3) uint8, cameras.npy (objects, views, 3) and solids.npy.

    The last one contains the bits of `_render_object`. See `fill`.
    """
    fill(
        folder,
        partial(_render_object, views=views, size=size),
        range(first_seed, first_seed + objects),
        workers,
        views=((views, size, size, 3), np.uint8),
        solids=((GRID**3 // 8,), np.uint8),
        cameras=((views, 3), np.float32),
    )


class Views:
    """Pictures and cameras that `render_views` has written so far, on a device.

    Args:
        folder: folder of the files.
        device: device of the tensors.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        if not all((folder / f"{name}.npy").exists() for name in ("views", "cameras", "solids")):
            raise SystemExit(f"No rendered objects in {folder}; run `train_view_prior.py render` first.")
        self._files = [
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("views", "solids", "cameras")
        ]
        self.pictures, self.solids, self.cameras = (
            torch.empty(file.shape, dtype=getattr(torch, file.dtype.name), device=device)
            for file in self._files
        )
        self.count = 0
        if not self.update():
            raise SystemExit(f"No object in {folder} is rendered yet; wait for `train_view_prior.py render`.")

    def update(self) -> int:
        """Reads objects that were rendered in the meantime; returns the number of all objects."""
        missing = np.isnan(self._files[2][self.count :, 0, 0])
        end = self.count + int(missing.argmax() if missing.any() else len(missing))
        for tensor, file in zip((self.pictures, self.solids, self.cameras), self._files, strict=True):
            tensor[self.count : end] = torch.from_numpy(file[self.count : end].copy())
        self.count = end
        return end

    def images(self, objects: Tensor, views: Tensor) -> Tensor:
        """Pictures (..., 3, S, S) in [-1, 1] of the given views (...) of the given objects (...)."""
        return self.pictures[objects, views].movedim(-1, -3).float() / 127.5 - 1

    def batch(self, count: int) -> Tensor:
        """Random images (count, 3, S, S) in [-1, 1]."""
        objects, views = (
            torch.randint(end, (count,), device=self.pictures.device)
            for end in (self.count, self.pictures.shape[1])
        )
        return self.images(objects, views)

    def inside(self, objects: Tensor, points: Tensor) -> Tensor:
        """Share (N, ...) of the surroundings of `points` (N, ..., 3) that the objects (N,) fill."""
        shifts = torch.arange(7, -1, -1, device=points.device, dtype=torch.uint8)
        bits = (self.solids[objects][..., None] >> shifts) & 1
        solid = bits.view(-1, 1, GRID, GRID, GRID).to(points)
        positions = points.reshape(len(points), -1, 1, 1, 3) / OBJECT_RADIUS
        return F.grid_sample(solid, positions, align_corners=False).view(points.shape[:-1]).clamp(0, 1)

    def groups(self, count: int, targets: int) -> tuple[Tensor, Tensor, Tensor]:
        """Objects (count,), a known view of each (count,), and other views to be predicted (count, targets)."""
        device = self.pictures.device
        order = torch.rand(count, self.pictures.shape[1], device=device).argsort(1)
        return torch.randint(self.count, (count,), device=device), order[:, 0], order[:, 1 : targets + 1]
