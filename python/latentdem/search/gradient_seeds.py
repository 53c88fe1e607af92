"""Kernels at a coarse scale that several parts of a photograph agree or disagree on.

The alternation of `gradient_chain` finds a kernel near to where it begins, and edges of one kind, such as the
columns of a building, can lead it astray, although the true kernel would be a fixed point. Each part of a
photograph has other edges. At coarse scales an alternation in each of them, with several settings, takes less
time than one at full size. Judged on more of the photograph, the best kernels that differ go on.

At coarse scales the whole path of the camera is seen. At finer ones a path that varies over the photograph, or
is faint beside a place of rest, can shrink to a part of itself, which explains the photograph too, as a picture
that is still blurred. What the coarse scale says of the extent of the blur tells such parts apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..output.result import LEAST_COVERAGE
from .gradient_chain import SETTINGS, alternate, first_kernels, widths_to
from .gradient_input import GradientInput
from .gradient_score import SCORE_FRAME, kernel_radius, scores_at
from .selection import correlations

_SEED_WIDTH = 28  # largest width of the seeds
_PART = 0.6  # of each side of the photograph
_LEAST_SIDE = 3  # kernel sizes a part is high and wide at least
_PART_WINDOW, _WHOLE_WINDOW = 12, 16  # pixels a side that are used, in kernel widths
_JUDGED = 20  # different kernels from parts that are alternated on the whole photograph
_ALIKE = 0.93  # normalised correlation from which two kernels count as one
_RADIUS_WIDTH = 15  # largest width of the kernels that say how far the blur extends
RADIUS_QUANTILE = 0.25  # of their radii, as some of the kernels are too wide
_RESOLUTION = 0.7  # radius of what a coarse scale shows of a point, in its pixels


@dataclass(frozen=True)
class Estimates:
    """What the gradients of one photograph say at one scale.

    Attributes:
        kernels: (N, 1, w, w), no two of them alike, best first.
        radius: root mean square distance of the blur from its centre, in pixels of the photograph; a kernel of
            much less is only a part of it.
    """

    kernels: Tensor
    radius: float

    @property
    def least_radius(self) -> float:
        """Below this a kernel is only a part of the blur."""
        return LEAST_COVERAGE * self.radius


def seed_width(kernel_size: int) -> int:
    """The width of the kernel at the scale where seeds are taken, below that at full size."""
    return max(width for width in widths_to(kernel_size)[:-1] or [kernel_size] if width <= _SEED_WIDTH)


def seeds(inputs: GradientInput, count: int, sigma: float, on_part: Callable[[], None]) -> Estimates:
    """Different kernels of one photograph at the scale of `seed_width`, and how far the blur extends.

    Args:
        inputs: the photograph, as a single hypothesis.
        count: how many kernels at most.
        sigma: standard deviation of the noise at full size, in units of [0, 1].
        on_part: called after each part of the photograph.
    """
    size = inputs.kernel_size
    width = seed_width(size)
    coarse, fine = _widths(size)
    several = len(SETTINGS)
    whole = replace(inputs, window=_WHOLE_WINDOW * width)
    found, radii = [], []
    for part in (whole, *_parts(inputs, _PART_WINDOW * width)):
        part = replace(part, repeats=several)
        kernels = _coarse_kernels(part, coarse, sigma)
        radii.append(kernel_radius(kernels))
        found.append(alternate(part, SETTINGS, kernels, fine, sigma) if fine else kernels)
        on_part()
    radius = _radius(radii, size / coarse[-1])
    kernels = without_parts(torch.cat(found), LEAST_COVERAGE * radius * width / size)
    kernels = _best(whole, kernels, _JUDGED, sigma)
    whole = replace(whole, repeats=len(kernels))
    kernels = alternate(whole, SETTINGS[:1] * len(kernels), kernels, [width], sigma)
    return Estimates(_best(whole, kernels, count, sigma), radius)


def radius_of_blur(inputs: GradientInput, sigma: float) -> float:
    """`Estimates.radius` alone, of a kernel of `inputs.kernel_size` at most, for the arguments of `seeds`."""
    size = inputs.kernel_size
    coarse, width = _widths(size)[0], seed_width(size)
    pieces = replace(inputs, window=_WHOLE_WINDOW * width), *_parts(inputs, _PART_WINDOW * width)
    radii = [
        kernel_radius(_coarse_kernels(replace(piece, repeats=len(SETTINGS)), coarse, sigma)) for piece in pieces
    ]
    return _radius(radii, size / coarse[-1])


def has_parts(size: int, height: int, width: int) -> bool:
    """Whether a photograph has parts that are large enough for kernels of this size."""
    return round(_PART * min(height, width)) >= _LEAST_SIDE * size


def _widths(size: int) -> tuple[list[int], list[int]]:
    """The widths of kernels at coarse scales, which say how far the blur extends, and at finer ones."""
    widths = [one for one in widths_to(size) if one <= seed_width(size)]
    coarse, fine = ([one for one in widths if (one > _RADIUS_WIDTH) == later] for later in (False, True))
    return coarse, fine


def _coarse_kernels(part: GradientInput, widths: list[int], sigma: float) -> Tensor:
    """A kernel for each setting, (N, 1, w, w), w the last of the widths."""
    return alternate(part, SETTINGS, first_kernels(len(SETTINGS), part.grey), widths, sigma)


def _radius(radii: list[Tensor], step: float) -> float:
    """How far the blur extends, from radii of kernels at a coarse scale with pixels of `step`."""
    seen = float(torch.cat(radii).quantile(RADIUS_QUANTILE))
    return step * math.sqrt(max(seen**2 - _RESOLUTION**2, 0.0))


def _parts(inputs: GradientInput, window: int) -> list[GradientInput]:
    """Windows in the overlapping corners of the photograph and in its middle; none where they are too small."""
    height, width = inputs.grey.shape[-2:]
    if not has_parts(inputs.kernel_size, height, width):
        return []
    sides = round(_PART * height), round(_PART * width)
    down, right = height - sides[0], width - sides[1]
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    places = [(..., slice(top, top + sides[0]), slice(left, left + sides[1])) for top, left in corners]
    part = replace(inputs, circular=False, window=window)
    return [replace(part, grey=inputs.grey[place], mask=inputs.mask[place]) for place in places]


def _best(inputs: GradientInput, kernels: Tensor, count: int, sigma: float) -> Tensor:
    """The best of the kernels (N, 1, w, w) on the whole photograph that differ, best score first."""
    width = kernels.shape[-1]
    scale = replace(inputs, repeats=len(kernels)).scale(width, [SCORE_FRAME] * len(kernels))
    return different(kernels, scores_at(scale, kernels, sigma * width / inputs.kernel_size), count)


def without_parts(kernels: Tensor, least_radius: float) -> Tensor:
    """Those of the kernels (N, 1, K, K) that have this radius, in pixels; all of them if none has."""
    chosen = kernel_radius(kernels) >= least_radius
    return kernels[chosen] if bool(chosen.any()) else kernels


def different(kernels: Tensor, scores: Tensor, count: int) -> Tensor:
    """The kernels (N, 1, K, K) with the lowest scores (N,), `count` of them at most, no two of them alike."""
    order = scores.argsort().tolist()
    kept = order[:1]
    for n in order[1:]:
        if len(kept) == count:
            break
        if correlations(kernels[n : n + 1], kernels[kept, 0][None])[0].max() < _ALIKE:
            kept.append(n)
    return kernels[kept]
