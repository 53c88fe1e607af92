"""Blur kernels of hand-held cameras for training: a path with inertia, rests and jerks, seen through a lens."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

_POINTS = 2000  # of a path
_MARGIN = 12  # pixels around the kernel in which it is drawn
_LENS = ((0.35, 1.1), (0.1, 0.6))  # standard deviations in pixels: a soft lens, and one that hardly blurs


def camera_kernel(size: int, generator: np.random.Generator) -> np.ndarray:
    """A kernel (K, K), float32, sum 1, its centre of mass nearest to K // 2.

    The velocity of the camera is an Ornstein-Uhlenbeck process (a memory of 0.6 to 30 % of the exposure) with
    up to a few jerks and a drift, and slows down at up to three places, which become bright. The path takes up
    18 to 86 % of the frame, at a sub-pixel position, and is blurred by a Gaussian.
    """
    memory = _POINTS * 10 ** generator.uniform(-2.2, -0.5)
    velocity = _velocity(memory, generator)
    if generator.uniform() < 0.6:
        time = np.arange(_POINTS) / _POINTS
        for _ in range(generator.integers(1, 4)):
            centre, width = generator.uniform(), 10 ** generator.uniform(-2, -0.7)
            velocity *= 1 - generator.uniform(0.7, 1) * np.exp(-(((time - centre) / width) ** 2))
    path = np.cumsum(velocity)
    span = max(np.ptp(path.real), np.ptp(path.imag), 1e-9)
    path *= 0.9 * size * generator.uniform(0.2, 0.95) / span
    kernel = _drawn(path, size + _MARGIN, generator)
    kernel = gaussian_filter(kernel, generator.uniform(*_LENS[generator.integers(len(_LENS))]))
    return _cut_out(kernel, size)


def _velocity(memory: float, generator: np.random.Generator) -> np.ndarray:
    noise = generator.normal(size=(_POINTS, 2)) @ (1, 1j)
    jerks = generator.uniform(size=_POINTS) < generator.choice([0, 2, 5]) / _POINTS
    jumps = 2.5 * jerks * (generator.normal(size=(_POINTS, 2)) @ (1, 1j))
    decay = np.exp(-1 / memory)
    velocity, present = np.empty(_POINTS, complex), noise[0]
    for n in range(_POINTS):
        present = present * decay + np.sqrt(1 - decay**2) * noise[n] + jumps[n]
        velocity[n] = present
    return velocity + generator.normal(0, 0.7) * np.exp(2j * np.pi * generator.uniform())


def _drawn(path: np.ndarray, side: int, generator: np.random.Generator) -> np.ndarray:
    """The path on `side` x `side` pixels, its points shared among the four nearest ones."""
    canvas = np.zeros((side, side))
    columns, rows = (
        one - (one.max() + one.min()) / 2 + side // 2 + generator.uniform(-0.5, 0.5)
        for one in (path.real, path.imag)
    )
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    for right in (0, 1):
        for down in (0, 1):
            share = np.abs(1 - right - (columns - left)) * np.abs(1 - down - (rows - top))
            at = np.clip(top + down, 0, side - 1), np.clip(left + right, 0, side - 1)
            np.add.at(canvas, at, share)
    return canvas


def _cut_out(kernel: np.ndarray, size: int) -> np.ndarray:
    offsets = np.arange(len(kernel)) - len(kernel) // 2
    centre = [round(float(kernel.sum(axis) @ offsets) / kernel.sum()) for axis in (1, 0)]
    kernel = np.roll(kernel, (-centre[0], -centre[1]), (0, 1))
    first = len(kernel) // 2 - size // 2
    kernel = kernel[first : first + size, first : first + size].clip(min=0)
    return (kernel / kernel.sum()).astype(np.float32)
