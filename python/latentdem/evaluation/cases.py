"""Settings and test cases of an evaluation, and the task that a method is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_kernel_size
from ..errors import UserError
from ..io.images import MIN_SIDE, read_image
from ..operators.kernels import motion_kernel
from ..operators.simulate import SimulatedBoundary, blur_and_add_noise
from ..output.result import Result
from ..solver.passes import Progress


@dataclass(frozen=True)
class EvaluationSettings:
    """Everything that determines the figures of an evaluation.

    Attributes:
        kernel_size: K of the random motion kernels, and of the estimates.
        intensity: of the motion, 0 to 1.
        noise_sigma: standard deviation of the noise, in units of [-1, 1].
        estimate_noise: whether the method estimates the noise level instead of being given it.
        non_blind: whether the method is given the true kernel.
        boundary: "circular" as in the paper, or "valid" as in a photograph.
        margin: pixels at every edge that image metrics leave out.
        size: side in pixels that images are cropped square and reduced to; None leaves them as they are.
        seed: image i has the kernel and noise of seed + i; the method always gets `seed`.
        prior: as in `latentdem.deblur`.
        e_step: as in `latentdem.deblur`.
        without: as in `latentdem.deblur`, sorted.
        steps: as in `latentdem.deblur`.
    """

    kernel_size: int = 64
    intensity: float = 0.5
    noise_sigma: float = 0.02
    estimate_noise: bool = False
    non_blind: bool = False
    boundary: SimulatedBoundary = "circular"
    margin: int = 0
    size: int | None = None
    seed: int = 0
    prior: str = "embedded"
    e_step: Literal["proximal", "posterior"] = "proximal"
    without: tuple[str, ...] = ()
    steps: int | None = None


@dataclass(frozen=True)
class Case:
    """A sharp image (1, C, H, W), its true kernel (1, 1, K, K) and the simulated measurement of it.

    `name` is that of the file, and `index` its number among the images of the folder.
    """

    reference: Tensor
    kernel: Tensor
    blurred: Tensor
    name: str
    index: int


@dataclass(frozen=True)
class Task:
    """Test cases of one size, in the form that a method is given.

    Attributes:
        blurred: (B, C, H, W) in [-1, 1].
        kernel: (B, 1, K, K) the true kernels, for non-blind methods (`settings.non_blind`).
        settings: settings of the evaluation.
        device: where to compute.
        progress: has to be called as progress(stage, done, total).
        names, indices: names of the B files and their numbers in the folder, by which published results are
            found.
    """

    blurred: Tensor
    kernel: Tensor
    settings: EvaluationSettings
    device: torch.device
    progress: Progress
    names: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()


Method = Callable[[Task], Result]
"""Restores the images of a task; `seconds["total"]` of the result is the time it took for all of them."""


def make_case(path: Path, index: int, settings: EvaluationSettings) -> Case:
    """The test case of image number `index`, the same at every call.

    Raises:
        UserError: the image cannot be read or is too small.
    """
    sharp = read_image(path).pixels
    if settings.size is not None:
        sharp = _resized(sharp, settings.size, path)
    generator = np.random.default_rng(settings.seed + index)
    kernel = motion_kernel(settings.kernel_size, settings.intensity, generator)
    blurred, reference = blur_and_add_noise(sharp, kernel, settings.noise_sigma, generator, settings.boundary)
    check_kernel_size(settings.kernel_size, *blurred.shape[-2:])
    if min(blurred.shape[-2:]) - 2 * settings.margin < MIN_SIDE:
        raise UserError(
            f"Without a margin of {settings.margin} less than {MIN_SIDE} x {MIN_SIDE} pixels are left of "
            f"{path.name}, blurred {blurred.shape[-1]} x {blurred.shape[-2]}; use a smaller one."
        )
    return Case(reference, kernel, blurred, path.name, index)


def _resized(sharp: Tensor, size: int, path: Path) -> Tensor:
    """The central square, reduced to size x size with antialiasing."""
    height, width = sharp.shape[-2:]
    side = min(height, width)
    if side < size:
        raise UserError(f"{path} is {width} x {height} pixels, too small for --size {size}.")
    top, left = (height - side) // 2, (width - side) // 2
    square = sharp[..., top : top + side, left : left + side]
    if side == size:
        return square
    return F.interpolate(square, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
