"""The density over camera poses of a photograph whose blur varies, from its gradients, coarse to fine.

The alternation is that of `gradient_start`, and two things differ. The image step runs in overlapping windows,
each with the kernel of its middle (efficient filter flow: Hirsch, Sra, Schoelkopf and Harmeling, CVPR 2010).
And the normal equations of the kernels of all windows are solved together for one density over camera poses
(`camera_poses`), so that a window with few edges gets its kernel from the others. From the coarsest scale on,
where the kernel is three pixels wide, the rolls belong to the unknowns; their step moves the outermost windows
by a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor

from ..operators.blur import crop_kernel
from ..solver.measurement import Measurement
from .camera_poses import CameraPoses, KernelField, normalised, positive_density
from .gradient_chain import (
    LEAST_PENALTY,
    PENALTY_FALL,
    ROUNDS,
    SETTINGS,
    GradientSettings,
    first_kernels,
    widths_to,
)
from .gradient_input import GradientInput
from .gradient_scale import Scale, resize, squared_gradient
from .gradient_score import MODEL_ERROR, SCORE_FRAME, scores_at

_SETTINGS = (SETTINGS[0], SETTINGS[2], SETTINGS[3])  # with the large penalty of others the roll goes wrong
_PER_SIDE = 4  # windows along each side of the photograph
_WIDTHS_PER_WINDOW, _LEAST_WINDOW = 5, 48  # a window is 5 kernels wide, or 48 pixels
_FARTHEST_ROLL = 0.35  # by how much the largest roll moves the outermost windows at first, in kernel widths
_ITERATIONS, _REFINEMENT_ITERATIONS = 40, 80
_FAINT = 0.01  # values of a density below this share of its peak are set to zero
_SMALL_PART = 0.1  # connected parts of a density with less than this share are removed
_LEAST_SHARE = 0.003  # of the exposure: rolls with less are not continued at the next scale
_REFINEMENTS, _STRONGEST, _WHITENING, _RIDGE = 3, 0.1, 0.05, 0.03  # of the refinement, as in `gradient_start`
_COARSE_WIDTH = 21  # largest kernel width of the scales that show how large the kernels are
_MOST, _ROOM, _LEAST_SIZE = 0.95, 1.5, 15  # share of a kernel's mass, factor and lower limit of its size


VARYING_PARTS = len(_SETTINGS) + 1


@torch.no_grad()
def estimate_field(
    measurement: Measurement, kernel_size: int | None, largest: int, on_part: Callable[[], None] = lambda: None
) -> KernelField:
    """Estimates the blur of a photograph with several settings, and takes the one with the best score.

    Args:
        measurement: one photograph on its own pixels.
        kernel_size: K, which an even number makes odd; None finds it.
        largest: largest K that is tried where it is unknown.
        on_part: called `VARYING_PARTS` times.
    """
    sigma = float(measurement.sigma) / 2
    size = kernel_size or _size(measurement, largest - 1 + largest % 2, sigma)
    on_part()
    size = max(size - 1 + size % 2, 3)
    picture = _Picture.of(measurement, size)
    found: list[tuple[float, int, KernelField]] = []
    for setting in _SETTINGS:
        field = _refined(picture, _alternated(picture, setting, sigma, size), sigma)
        found.append((field_score(measurement, field), len(found), field))
        on_part()
    return min(found)[2]


@torch.no_grad()
def field_score(measurement: Measurement, field: KernelField, turned: bool = False) -> float:
    """Mean score (`scores_at`, lower is better) of the kernels of windows, or of them turned by 180 degrees."""
    windows = _Picture.of(measurement, field.kernel_size).windows(field.kernel_size, SCORE_FRAME)
    kernels = field.kernels(windows.centres)
    kernels = kernels.flip(-2, -1) if turned else kernels
    return float(scores_at(windows.scale, kernels, float(measurement.sigma) / 2).mean())


@dataclass(frozen=True)
class _Picture:
    """A grey photograph in [0, 1] with the mask of the gradients that count, (1, 1, H, W) each."""

    grey: Tensor
    mask: Tensor
    kernel_size: int

    @classmethod
    def of(cls, measurement: Measurement, kernel_size: int) -> _Picture:
        inputs = GradientInput.of(measurement.y, kernel_size, measurement.mask, False, 1)
        return cls(inputs.grey, inputs.mask, kernel_size)

    @property
    def size(self) -> tuple[int, int]:
        return self.grey.shape[-2], self.grey.shape[-1]

    def windows(self, width: int, frame: float) -> _Windows:
        """Windows of the photograph at the scale where the kernel is `width` pixels wide."""
        grey, mask = self.grey, self.mask
        if width != self.kernel_size:
            shape = [max(3 * width, round(n * width / self.kernel_size)) for n in self.size]
            grey, mask = resize(grey, shape), (resize(mask, shape) > 0.99).to(grey)
        side = max(_LEAST_WINDOW, _WIDTHS_PER_WINDOW * width)
        lines = [_starts(n, side) for n in grey.shape[-2:]]
        parts = [
            (..., slice(top, top + side), slice(left, left + side)) for top in lines[0] for left in lines[1]
        ]
        windows = torch.cat([grey[part] for part in parts])
        counts = torch.cat([mask[part] for part in parts])
        middle = [(n - min(side, n)) / 2 for n in grey.shape[-2:]]
        centres = grey.new_tensor(
            [[top - middle[0], left - middle[1]] for top in lines[0] for left in lines[1]]
        )
        size = (grey.shape[-2], grey.shape[-1])
        return _Windows(Scale(windows, counts, width, [frame] * len(parts), False), centres, size)


@dataclass(frozen=True)
class _Windows:
    """Windows of one scale, their places (N, 2) from the middle of the picture, and its size at that scale."""

    scale: Scale
    centres: Tensor
    size: tuple[int, int]

    @property
    def radius(self) -> float:
        """Distance from the middle to the outermost windows; half of that to the corners if that is more."""
        return max(float(self.centres.norm(dim=1).max()), math.hypot(*self.size) / 4)


def _starts(length: int, side: int) -> list[int]:
    """First pixels of windows of `side` that cover a line."""
    room = max(length - side, 0)
    return [round(i * room / (_PER_SIDE - 1)) for i in range(_PER_SIDE)] if room else [0]


def _alternated(picture: _Picture, setting: GradientSettings, sigma: float, last_width: int) -> KernelField:
    """The field after the alternation from the coarsest scale to that of `last_width`, in its pixels."""
    size = picture.kernel_size
    weights, angles = first_kernels(1, picture.grey)[:, 0], picture.grey.new_zeros(1)
    for index, width in enumerate(widths_to(size)):
        if width > last_width:
            break
        windows = picture.windows(width, setting.frame)
        weights, angles = _at_scale(weights, angles, width, 1 / windows.radius)
        poses = CameraPoses(windows.centres, angles, width)
        ones = angles.new_ones((len(windows.centres), 1, 1, 1))
        least = max(setting.whitening, (sigma * width / size / MODEL_ERROR) ** 2)
        for fall in range(index * ROUNDS, (index + 1) * ROUNDS):
            penalty = max(setting.penalty / PENALTY_FALL**fall, LEAST_PENALTY)
            x = windows.scale.l0_image(
                normalised(poses.kernels(weights)),
                penalty * ones,
                setting.first_weight * ones,
                setting.growth * ones,
                setting.last_weight * ones,
            )
            auto, cross = windows.scale.kernel_equations(x, windows.scale.inside, least * ones, width)
            solution = positive_density(poses, auto, cross, setting.ridge, weights, _ITERATIONS)
            weights = _cleaned(solution, weights)
        angles = _without_mean(angles, weights)
    return KernelField(weights, angles, windows.size)


def _at_scale(weights: Tensor, angles: Tensor, width: int, step: float) -> tuple[Tensor, Tensor]:
    """A density (T, K', K') and its rolls on the grid of a finer scale of `width` pixels and rolls of `step`.

    A roll on each side is added to those that have some share; a single one becomes all that are possible.
    """
    if len(angles) == 1:
        highest = max(round(_FARTHEST_ROLL * width), 1)
        lowest, old_step = -highest, step
    else:
        shares = weights.sum((1, 2))
        present = angles[shares > _LEAST_SHARE * shares.sum()] / step
        lowest = min(math.floor(float(present.min())) - 1, -1)
        highest = max(math.ceil(float(present.max())) + 1, 1)
        old_step = float(angles[1] - angles[0])
    finer = torch.arange(lowest, highest + 1, device=weights.device) * step
    nearness = (1 - (finer[:, None] - angles).abs() / old_step).clamp_min(0)
    weights = resize(weights[:, None], (width, width))[:, 0].clamp_min(0)
    weights = torch.einsum("ab,bij->aij", nearness, weights)
    return weights / weights.sum(), finer


def _refined(picture: _Picture, field: KernelField, sigma: float) -> KernelField:
    """The field after alternating with hyper-Laplacian images at full size, using their strongest gradients."""
    windows = picture.windows(picture.kernel_size, _SETTINGS[0].frame)
    scale, weights = windows.scale, field.weights
    poses = CameraPoses(windows.centres, field.angles, picture.kernel_size)
    whitening = weights.new_full((1, 1, 1, 1), max(_WHITENING, (sigma / MODEL_ERROR) ** 2))
    for _ in range(_REFINEMENTS):
        x = scale.hyper_laplacian_image(normalised(poses.kernels(weights)), max(5e-4, 20 * sigma**2))
        energy = squared_gradient(x) * scale.inside
        count = max(1, int(_STRONGEST * scale.inside.sum()))
        selected = scale.inside * (energy >= energy.flatten().topk(count).values[-1])
        auto, cross = scale.kernel_equations(x, selected, whitening, picture.kernel_size)
        solution = positive_density(poses, auto, cross, _RIDGE, weights, _REFINEMENT_ITERATIONS)
        weights = _cleaned(solution, weights)
    return KernelField(weights, _without_mean(field.angles, weights), picture.size)


def _without_mean(angles: Tensor, weights: Tensor) -> Tensor:
    """Rolls about their mean: a picture that is turned with all of them explains the photograph as well."""
    shares = weights.sum((1, 2))
    return angles - (shares * angles).sum() / shares.sum()


def _cleaned(weights: Tensor, fallback: Tensor) -> Tensor:
    """A density (T, K, K) without faint values and small parts, its mean translation nearest to the middle."""
    weights = torch.where(weights < _FAINT * weights.max(), 0, weights)
    values = weights.cpu().numpy()
    parts = label(values > 0, connectivity=3)
    masses = np.bincount(parts.ravel(), values.ravel())
    values = np.where(masses[parts] < _SMALL_PART * values.sum(), 0, values)
    total, size = values.sum(), values.shape[-1]
    if not np.isfinite(total) or total <= 0:
        return fallback
    offsets = np.arange(size) - size // 2
    moves = [-round(float((values.sum(axes) * offsets).sum() / total)) for axes in ((0, 2), (0, 1))]
    return torch.from_numpy(np.roll(values, moves, (1, 2)) / total).to(weights)


def _size(measurement: Measurement, largest: int, sigma: float) -> int:
    """K for the blur that the coarse scales show."""
    picture = _Picture.of(measurement, largest)
    width = max(width for width in widths_to(largest) if width <= _COARSE_WIDTH)
    field = _alternated(picture, _SETTINGS[0], sigma, width)
    kernels = field.kernels(picture.windows(width, 0.0).centres)
    reach = 1
    while reach < width and float(crop_kernel(kernels, reach).sum((1, 2, 3)).min()) < _MOST:
        reach += 2
    return min(max(round(_ROOM * reach * largest / width), _LEAST_SIZE), largest)
