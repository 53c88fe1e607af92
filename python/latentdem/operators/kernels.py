"""Blur kernels for tests and training: random camera motion, Gaussian, delta.

Every kernel is float32 (1, 1, K, K) or (N, 1, K, K), non-negative, sum 1, origin at index K // 2.

The motion kernels follow the statistics of the random walk that the field evaluates with (DPS, BlindDPS and
LatentDEM with K = 64 at intensity 0.5): a path of random steps whose directions keep turning to one side and
occasionally change side, drawn with constant brightness on a canvas of twice the kernel's size.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.filters import gaussian
from torch import Tensor

from ..errors import UserError

_CANVAS = 2  # canvas pixels per kernel pixel; the constants of the walk are in canvas pixels
_DETAIL = 4  # drawn pixels per canvas pixel: antialiasing
_JITTER = 0.1  # keeps steps and turning angles above zero at the ends of the intensity range


def _steps(diagonal: float, intensity: float, generator: np.random.Generator) -> np.ndarray:
    """Step lengths (N,): Beta(1, 30) times a scale, until the random path length is used up.

    A step longer than the whole path is not allowed. Beta(1, 30) has the distribution function
    1 - (1 - x)^30, so the truncated distribution is drawn exactly by inverting it.
    """
    length = 0.75 * diagonal * (generator.uniform() + generator.uniform(0, intensity**2))
    scale = (1 - intensity + _JITTER) * diagonal
    longest = 1 - (1 - min(length / scale, 1.0)) ** 30
    steps = np.empty(0)
    while steps.sum() < length:
        block = generator.uniform(0, longest, size=16 + int(60 * length / scale))
        steps = np.append(steps, scale * (1 - (1 - block) ** (1 / 30)))
    return steps[: int(np.searchsorted(np.cumsum(steps), length)) + 1]


def _angles(count: int, intensity: float, generator: np.random.Generator) -> np.ndarray:
    """Directions (count,) in radians of the steps before the common rotation."""
    largest = generator.uniform(0, intensity * np.pi)
    change = generator.beta(2, 20)
    first = generator.uniform(-largest, largest)
    sizes = generator.triangular(0, intensity * largest, largest + _JITTER, size=count - 1)
    sides = np.cumprod(np.where(generator.uniform(size=count - 1) < change, -1.0, 1.0))
    return np.append(first, np.sign(first) * sides * sizes)


def _path(diagonal: float, intensity: float, generator: np.random.Generator) -> np.ndarray:
    """Points (N, 2) of the camera's path in canvas pixels, relative to their mean."""
    steps = _steps(diagonal, intensity, generator)
    points = np.cumsum(steps * np.exp(1j * _angles(len(steps), intensity, generator)))
    points = (points - points.mean()) * np.exp(1j * generator.uniform(0, np.pi))
    return np.stack([points.real, points.imag], axis=1)


def _draw(points: np.ndarray, size: int, diagonal: float) -> np.ndarray:
    """The path as a stroke on a frame of twice the kernel's width, (2 size, 2 size), centred at index size.

    The whole-pixel line width and blur radius are those of the field's generator. Its canvas has neither
    antialiasing nor a margin; the margin here lets the kernel be cut out around its centre of mass.
    """
    side = 2 * size * _CANVAS * _DETAIL
    stroke = Image.new("L", (side, side))
    painter = ImageDraw.Draw(stroke)
    # The centre of kernel pixel `size` lies half a kernel pixel after its corner.
    drawn = (points + _CANVAS * (size + 0.5)) * _DETAIL
    width = max(1, int(diagonal / 150)) * _DETAIL
    painter.line([tuple(p) for p in drawn], fill=255, width=width, joint="curve")
    for x, y in drawn[[0, -1]]:  # round ends; a path of a single point is a dot
        painter.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    canvas = np.asarray(stroke.reduce(_DETAIL), dtype=np.float32)
    canvas = gaussian(canvas, sigma=int(0.01 * diagonal), mode="constant")
    frame = Image.fromarray(canvas).resize((2 * size, 2 * size), Image.Resampling.LANCZOS)
    return np.asarray(frame).clip(min=0)


def _cut_out(frame: np.ndarray, size: int) -> np.ndarray:
    """The (size, size) window of `frame` whose centre of mass is nearest to its index size // 2."""
    corner = np.full(2, size - size // 2)
    best, best_distance = frame, np.inf
    for _ in range(8):
        window = frame[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
        lines = window.sum(axis=1), window.sum(axis=0)
        offset = np.array([np.average(np.arange(size), weights=line) for line in lines]) - size // 2
        distance = float(np.abs(offset).max())
        if distance < best_distance:
            best, best_distance = window, distance
        move = np.rint(offset).astype(int)
        if not move.any():
            break
        corner = np.clip(corner + move, 0, size)
    return best


def motion_kernel(size: int, intensity: float, generator: np.random.Generator) -> Tensor:
    """One random camera-motion kernel, as the evaluation protocol of BlindDPS (Chung et al., 2023) draws it.

    The path has a length of 0.75 d (U(0, 1) + U(0, intensity^2)) for a canvas of diagonal d and steps of
    (1.1 - intensity) d Beta(1, 30). With m = U(0, pi intensity) the first direction is U(-m, m), the size of
    every other one triangular on (0, m + 0.1) with mode intensity * m, its sign that of the one before it,
    flipped with a probability drawn once from Beta(2, 20). The path is rotated by U(0, pi), drawn and
    slightly blurred; parts outside the K x K frame are cut off.

    Args:
        size: K, at least 3.
        intensity: 0 (straight lines) to 1 (long, strongly curved paths).
        generator: source of all randomness.

    Returns:
        (1, 1, K, K) float32, non-negative, sum 1, centre of mass at index K // 2 to the nearest pixel (within
        one pixel where the frame cuts the path).

    Raises:
        UserError: size below 3 or intensity outside [0, 1].
    """
    _check_size(size)
    if not 0 <= intensity <= 1:
        raise UserError(f"The motion intensity must lie between 0 and 1, not {intensity}.")
    diagonal = float(np.hypot(_CANVAS * size, _CANVAS * size))
    frame = _draw(_path(diagonal, intensity, generator), size, diagonal)
    kernel = torch.from_numpy(_cut_out(frame, size).astype(np.float32))[None, None]
    return kernel / kernel.sum()


def motion_kernels(count: int, size: int, intensity: float, seed: int) -> Tensor:
    """`count` random camera-motion kernels (count, 1, K, K); see `motion_kernel`.

    Kernel i depends on `seed` and i alone, so asking for more kernels keeps the first ones.
    """
    seeds = np.random.SeedSequence(seed).spawn(count)
    return torch.cat([motion_kernel(size, intensity, np.random.default_rng(s)) for s in seeds])


def gaussian_kernel(size: int, std: float) -> Tensor:
    """Isotropic Gaussian (1, 1, K, K) of standard deviation `std` > 0 pixels around index K // 2."""
    _check_size(size)
    if not std > 0:
        raise UserError(f"The standard deviation of a Gaussian kernel must be positive, not {std}.")
    line = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / std) ** 2)
    kernel = torch.outer(line, line)
    return (kernel / kernel.sum()).float()[None, None]


def delta_kernel(size: int) -> Tensor:
    """The kernel (1, 1, K, K) that changes nothing: 1 at index K // 2."""
    _check_size(size)
    kernel = torch.zeros(1, 1, size, size)
    kernel[..., size // 2, size // 2] = 1
    return kernel


def _check_size(size: int) -> None:
    if size < 3:
        raise UserError(f"The kernel size must be at least 3 pixels, not {size}.")
