"""Renderings of procedural objects as memory-mapped training data."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from latentdem.three_d.cameras import random_cameras
from latentdem.three_d.render import on_white, render
from latentdem.three_d.scenes import random_scene


def _one(seed: int, views: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    cameras = random_cameras(views, torch.Generator().manual_seed(seed))
    return on_white(render(random_scene(seed), cameras, size)), cameras.numpy()


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
    """Writes views.npy (objects, views, size, size, 3) uint8 and cameras.npy (objects, views, 3) to `folder`.

    A second call goes on where the first one stopped: the cameras of objects that are missing are NaN.
    """
    pictures = _open(folder / "views.npy", (objects, views, size, size, 3), np.uint8, 0)
    cameras = _open(folder / "cameras.npy", (objects, views, 3), np.float32, np.nan)
    missing = np.flatnonzero(np.isnan(cameras[:, 0, 0]))
    arguments = ([int(first_seed + i) for i in missing], [views] * len(missing), [size] * len(missing))
    with ProcessPoolExecutor(workers) as pool:
        done = pool.map(_one, *arguments, chunksize=8)
        for i, (picture, camera) in tqdm(zip(missing, done, strict=True), total=len(missing), mininterval=5):
            pictures[i], cameras[i] = picture, camera
    pictures.flush()
    cameras.flush()


class Views:
    """Pictures and cameras that `render_views` wrote."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        if not (folder / "views.npy").exists():
            raise SystemExit(f"No rendered objects in {folder}; run `train_view_prior.py render` first.")
        self.pictures = np.load(folder / "views.npy", mmap_mode="r")
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

    def pairs(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Objects and two different views of each, (count,) each."""
        objects, views, *_ = self.pictures.shape
        known = self.random.integers(views, size=count)
        wanted = (known + self.random.integers(1, views, size=count)) % views
        return self.random.integers(objects, size=count), known, wanted
