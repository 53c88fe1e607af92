"""Renderings of procedural objects and of meshes as memory-mapped training data."""

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
from latentdem.three_d.objects.base import Floats, MeasuredObject
from latentdem.three_d.synthetic.render import Light, on_white, render
from latentdem.three_d.synthetic.scenes import random_scene

GRID = 32  # points along one side of the cube in which the volume of an object is sampled


Shown = tuple[MeasuredObject, Light | Floats]


def _render_object(
    seed: int, make: Callable[[int], Shown], views: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, bits (GRID^3 / 8,) that are 1 at points inside, in the order z, y and x, and cameras."""
    (scene, light), cameras = make(seed), random_cameras(views, torch.Generator().manual_seed(seed))
    line = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * OBJECT_RADIUS
    points = np.stack(np.meshgrid(line, line, line, indexing="ij")[::-1], axis=-1).reshape(-1, 3)
    return on_white(render(scene, cameras, size, light)), np.packbits(scene.inside(points)), cameras.numpy()


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


def procedural(seed: int) -> Shown:
    """The procedural object of a seed, in the usual light."""
    return random_scene(seed), "object"


def render_views(
    folder: Path,
    make: Callable[[int], Shown],
    seeds: Sequence[int],
    views: int,
    size: int,
    workers: int,
) -> None:
    """Writes views.npy (objects, views, size, size, 3) uint8, cameras.npy (objects, views, 3) and solids.npy.

    The last one contains the bits of `_render_object`. See `fill`.

    Args:
        folder: folder of the files.
        make: function of a seed that returns an object and its light.
        seeds: seeds of the objects and of their cameras.
        views: number of cameras for each.
        size: pixels along one side.
        workers: number of processes.
    """
    fill(
        folder,
        partial(_render_object, make=make, views=views, size=size),
        seeds,
        workers,
        views=((views, size, size, 3), np.uint8),
        solids=((GRID**3 // 8,), np.uint8),
        cameras=((views, 3), np.float32),
    )


class Views:
    """Pictures and cameras that `render_views` has written so far, on a device.

    Args:
        folders: folders of the files; all objects have equally many views of one size.
        shares: how often an object of each folder is drawn; all equally often by default.
        device: device of the tensors.
    """

    def __init__(
        self, *folders: Path, shares: Sequence[float] | None = None, device: torch.device | str = "cpu"
    ) -> None:
        for folder in folders:
            if not all((folder / f"{name}.npy").exists() for name in ("views", "cameras", "solids")):
                raise SystemExit(f"No rendered objects in {folder}; run `train_view_prior.py render` first.")
        self._files = [
            [np.load(folder / f"{name}.npy", mmap_mode="r") for folder in folders]
            for name in ("views", "solids", "cameras")
        ]
        shapes = {files.shape[1:] for files in self._files[0]}
        if len(shapes) > 1:
            raise SystemExit(f"The views in {' and '.join(map(str, folders))} differ in number or size.")
        self.pictures, self.solids, self.cameras = (
            torch.empty(
                (sum(map(len, parts)), *parts[0].shape[1:]),
                dtype=getattr(torch, parts[0].dtype.name),
                device=device,
            )
            for parts in self._files
        )
        self._starts = np.cumsum([0, *map(len, self._files[0])])[:-1].tolist()
        self._shares = torch.tensor(shares or [1.0] * len(folders), device=device)
        self._counts = torch.zeros(len(folders), dtype=torch.long)
        self.update()
        for folder, count in zip(folders, self._counts.tolist(), strict=True):
            if not count:
                raise SystemExit(
                    f"No object in {folder} is rendered yet; wait for `train_view_prior.py render`."
                )

    @property
    def count(self) -> int:
        """Number of all objects so far."""
        return int(self._counts.sum())

    def update(self) -> int:
        """Reads objects that were rendered in the meantime; returns the number of all objects."""
        for folder, (start, count) in enumerate(zip(self._starts, self._counts.tolist(), strict=True)):
            missing = np.isnan(self._files[2][folder][count:, 0, 0])
            end = count + int(missing.argmax() if missing.any() else len(missing))
            for tensor, parts in zip((self.pictures, self.solids, self.cameras), self._files, strict=True):
                tensor[start + count : start + end] = torch.from_numpy(parts[folder][count:end].copy())
            self._counts[folder] = end
        return self.count

    def draw(self, count: int) -> Tensor:
        """Random objects (count,)."""
        device = self.pictures.device
        folders = torch.multinomial(self._shares, count, replacement=True)
        counts, starts = (
            torch.as_tensor(values, device=device)[folders] for values in (self._counts, self._starts)
        )
        return starts + (torch.rand(count, device=device, dtype=torch.float64) * counts).long()

    def images(self, objects: Tensor, views: Tensor) -> Tensor:
        """Pictures (..., 3, S, S) in [-1, 1] of the given views (...) of the given objects (...)."""
        return self.pictures[objects, views].movedim(-1, -3).float() / 127.5 - 1

    def batch(self, count: int) -> Tensor:
        """Random images (count, 3, S, S) in [-1, 1]."""
        views = torch.randint(self.pictures.shape[1], (count,), device=self.pictures.device)
        return self.images(self.draw(count), views)

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
        return self.draw(count), order[:, 0], order[:, 1 : targets + 1]
