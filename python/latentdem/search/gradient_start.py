"""Blur kernels from the strong gradients of a photograph alone, coarse to fine: a start for the blind search.

The measurement is y = k * x + noise. From the coarsest scale, where the kernel is three pixels wide, to full
size two steps alternate, each by Fourier transforms:

- image: min_x ||k * x - y||^2 + lambda ||D x||_0, the prior of few edges of Xu, Zheng and Jia (CVPR 2013), by
  the half-quadratic splitting of Xu, Lu, Xu and Jia (SIGGRAPH Asia 2011), with a falling lambda as in Pan, Hu,
  Su and Yang (CVPR 2014) and Anger, Facciolo and Delbracio (IPOL 2019);
- kernel: min_k>=0 sum_d ||W (k * m d x - d y)||^2 + ridge ||k||^2 over the gradients d across and down (Cho and
  Lee, SIGGRAPH Asia 2009). It depends only on the autocorrelation of the gradients at lags below K, so an
  iteration costs a Fourier transform of 2 K x 2 K.

W whitens the residual of the gradients. That residual consists of the model's error, which is white in the
gradients, and of the sensor's noise, which differentiation amplifies at high frequencies: its power is
sigma_m^2 + sigma^2 |D|^2, so W^2 = 1 / (1 + w |D|^2) with w = sigma^2 / sigma_m^2. The mask m leaves out
gradients near the border, where the blur mixes in what lies beyond it. At full size the kernel is refined
against a deconvolution with a hyper-Laplacian prior (Krishnan and Fergus, NIPS 2009), of which only the
strongest gradients are used (the selection of Xu and Jia, ECCV 2010, without its measure of direction).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import latentdem_ext as ext

from ..checks import check_kernel_size
from ..operators.blur import crop_kernel, pad_kernel
from ..solver.measurement import Measurement
from .gradient_chain import SETTINGS, alternate, widths_to
from .gradient_input import GradientInput
from .gradient_scale import Scale, cleaned, squared_gradient, unconstrained_kernel
from .gradient_score import MODEL_ERROR, full_scale, score_kernels, scores_at
from .gradient_seeds import (
    RADIUS_QUANTILE,
    Estimates,
    different,
    has_parts,
    radius_of_blur,
    seeds,
    without_parts,
)

PARTS = 8  # of the work at one size: six parts of the photograph, the fine scales, the refinement
_SEEDS = 6  # kernels at a coarse scale that go on to full size
_FINE = SETTINGS[:2]  # settings that each of them goes on with
_KEPT = 3  # different kernels of each size
_MOST = 0.95  # share of the mass of a kernel
_STRONGEST = 0.1  # share of the gradients that the refinement uses
_ROOM = 1.6  # size of the larger frame in which a kernel of a given size is estimated too
_AUTOMATIC = (15, 27, 45, 75)  # kernel sizes that are tried where none is given
_RADIUS_SIZE = 45  # the size closest to this one says how far the blur extends
_SMALL_SIZE = 15  # of a small photograph, this one says how far it extends at least


@dataclass(frozen=True)
class Starts:
    """Kernels to start a search from.

    Attributes:
        kernels: (B, H, 1, K, K), float32, non-negative, sum 1, best score first.
        scores: (B, H) as `score_kernels` gives them. Where fewer kernels were found for a photograph than for
            another one, its best one is repeated, with an infinite score.
        radius: (B, 2) between which values the root mean square distance of the blur from its centre lies, in
            pixels; see `Estimates`. They are equal but for photographs that are small beside the kernel.
    """

    kernels: Tensor
    scores: Tensor
    radius: Tensor


@torch.no_grad()
def starts_for(
    measurement: Measurement,
    kernel_size: int,
    sizes: tuple[int, ...],
    skip: bool = False,
    on_part: Callable[[], None] = lambda: None,
) -> Starts:
    """Kernels to start a search from, estimated at several sizes.

    Kernels that are only a part of the blur are left out if there are others. The kernels of a photograph do
    not depend on the others of its batch.

    Args:
        measurement: photographs on their own pixels, not on a padded grid.
        kernel_size: K of the results; larger estimates are cropped, and lose what lies outside.
        sizes: at which kernels are estimated, from 3 to the smaller side of the photographs.
        skip: whether sizes are left out that can hold none of the kernels found at the next larger one, where
            the photograph is large enough for that one to be trusted.
        on_part: called at most `PARTS` times for each photograph and size.

    Raises:
        UserError: a size is below 3 or above the smaller side.
    """
    largest = max(*sizes, kernel_size)
    kernels, scores, radii = [], [], []
    for n in range(len(measurement)):
        one = measurement.rows(slice(n, n + 1))
        given: dict[str, Any] = {"mask": one.mask, "noise_sigma": float(one.sigma), "circular": one.circular}
        estimates: list[Estimates] = []
        for size in sorted(sizes, reverse=True):
            if not (skip and estimates) or _may_fit(one, estimates[-1], size):
                estimates.append(estimate_kernels(one.y, size, on_part=on_part, **given))
        typical = min(estimates, key=lambda found: abs(found.kernels.shape[-1] - _RADIUS_SIZE))
        radii.append(_radii(one, typical))
        joined = torch.cat([pad_kernel(found.kernels, largest) for found in estimates])
        joined = without_parts(joined, replace(typical, radius=radii[-1][0]).least_radius)
        score = score_kernels(one.y, joined[None], **given)[0]
        score, order = score.sort(stable=True)
        kernels.append(ext.project_kernel(crop_kernel(joined[order], kernel_size)))
        scores.append(score)
    count = max(len(score) for score in scores)
    for n, score in enumerate(scores):
        missing = count - len(score)
        kernels[n] = torch.cat([kernels[n], kernels[n][:1].expand(missing, -1, -1, -1)])
        scores[n] = torch.cat([score, score.new_full((missing,), torch.inf)])
    return Starts(torch.stack(kernels), torch.stack(scores), torch.tensor(radii, device=measurement.y.device))


@torch.no_grad()
def shared_starts(starts: Starts, measurement: Measurement, count: int) -> Starts:
    """Kernels for photographs that have one in common: the different ones of all of them, each judged on all.

    Args:
        starts: of each of the B photographs.
        measurement: these photographs.
        count: how many kernels at most.

    Returns:
        The same kernels and mean scores, best first, and the same radii, for each of the photographs.
    """

    def on_all(kernels: Tensor) -> Tensor:
        """Mean scores (N,) of kernels (N, 1, K, K)."""
        scores = []
        for n in range(len(measurement)):
            one = measurement.rows(slice(n, n + 1))
            given: dict[str, Any] = {"mask": one.mask, "noise_sigma": float(one.sigma)}
            scores.append(score_kernels(one.y, kernels[None], circular=one.circular, **given)[0])
        return torch.stack(scores).mean(0)

    pool = starts.kernels.flatten(0, 1)
    kernels = different(pool, on_all(pool), count)
    photographs = len(measurement)
    return Starts(
        kernels[None].expand(photographs, -1, -1, -1, -1),
        on_all(kernels)[None].expand(photographs, -1),
        starts.radius.quantile(RADIUS_QUANTILE, 0).expand(photographs, -1),
    )


def _has_parts(photograph: Measurement, found: Estimates) -> bool:
    """Whether the photograph has parts for kernels of the size of an estimate."""
    size = found.kernels.shape[-1]
    return has_parts(size - 1 + size % 2, *photograph.size)


def _may_fit(photograph: Measurement, found: Estimates, size: int) -> bool:
    """Whether the kernel may have this size, after what was found at the next larger one.

    Where a photograph is small beside that one, its estimates may be wrong, and then fill their frames.
    """
    return not _has_parts(photograph, found) or min(map(_extent, found.kernels)) <= size


def _radii(photograph: Measurement, found: Estimates) -> tuple[float, float]:
    """Between which radii the blur lies, from what was found at one size.

    Where that size leaves no parts of the photograph, one failed estimate at a scale of few pixels is all there
    is, mostly too wide. A smaller size has parts, but may not hold the blur. The truth lies between them.
    """
    if found.kernels.shape[-1] <= _SMALL_SIZE or _has_parts(photograph, found):
        return found.radius, found.radius
    inputs = GradientInput.of(photograph.y, _SMALL_SIZE, photograph.mask, photograph.circular, 1)
    smaller = radius_of_blur(inputs, float(photograph.sigma) / 2)
    return min(smaller, found.radius), max(smaller, found.radius)


def _extent(kernel: Tensor) -> int:
    """The side of the least square around the origin of a kernel (1, K, K) that holds most of its mass."""
    size = kernel.shape[-1]
    offsets = (torch.arange(size, device=kernel.device) - size // 2).abs()
    rings = torch.maximum(offsets[:, None], offsets[None]).flatten()
    mass = kernel.new_zeros(size).index_add_(0, rings, kernel.flatten()).cumsum(0)
    return 2 * int((mass < _MOST * mass[-1]).sum()) + 1


def sizes_around(kernel_size: int, side: int) -> tuple[int, ...]:
    """A given kernel size and one larger: a kernel is estimated better in a frame with some room.

    Args:
        kernel_size: K.
        side: the smaller side of the photographs, which no size exceeds.
    """
    larger = min(round(_ROOM * kernel_size), side)
    larger -= (larger - kernel_size) % 2  # odd or even as K is, so that the origin stays
    return tuple(sorted({kernel_size, max(larger, kernel_size)}))


def automatic_sizes(side: int) -> tuple[int, ...]:
    """Kernel sizes to try in photographs of this smaller side whose kernel size is unknown."""
    return tuple(size for size in _AUTOMATIC if size <= side // 3) or (min(_AUTOMATIC[0], side - 1 + side % 2),)


@torch.no_grad()
def estimate_kernels(
    y: Tensor,
    kernel_size: int,
    *,
    mask: Tensor | None = None,
    noise_sigma: float | None = None,
    circular: bool = False,
    on_part: Callable[[], None] = lambda: None,
) -> Estimates:
    """Estimates kernels of a blurred photograph, best score first, and how far the blur extends.

    Args:
        y: (1, C, H, W) in [-1, 1]; the mean of the channels is used.
        kernel_size: K, at least 3; a longer path of the camera is cut off.
        mask: (1, 1, H, W), 1 where the measurement counts, 0 where it does not (saturated, dead pixels).
        noise_sigma: standard deviation of the noise in units of [-1, 1]; None for very little.
        circular: whether the blur wraps around; otherwise light came in from beyond the frame.
        on_part: called at most `PARTS` times while it works.

    Returns:
        Kernels (N, 1, K, K), N <= 3, non-negative, sum 1, centre of mass at K // 2 to the nearest pixel.

    Raises:
        UserError: the size is below 3 or above the smaller side of the photograph.
    """
    check_kernel_size(kernel_size, *y.shape[-2:])
    odd = kernel_size - 1 + kernel_size % 2
    inputs = GradientInput.of(y, odd, mask, circular, 1)
    sigma = (noise_sigma or 0.0) / 2
    found = seeds(inputs, _SEEDS, sigma, on_part)
    first = found.kernels.repeat(len(_FINE), 1, 1, 1)
    inputs = replace(inputs, repeats=len(first))
    settings = [one for one in _FINE for _ in found.kernels]
    widths = [width for width in widths_to(odd) if width > first.shape[-1]]
    kernels = alternate(inputs, settings, first, widths, sigma)
    scale = full_scale(inputs)
    on_part()
    kernels = refined_at_full_size(scale, kernels, sigma)
    on_part()
    kernels = without_parts(kernels, found.least_radius)
    scale = full_scale(replace(inputs, repeats=len(kernels)))
    kernels = different(kernels, scores_at(scale, kernels, sigma), _KEPT)
    return Estimates(pad_kernel(kernels, kernel_size), found.radius)


def refined_at_full_size(scale: Scale, kernel: Tensor, sigma: float, rounds: int = 3) -> Tensor:
    """Kernels (N, 1, K, K) after alternating with a hyper-Laplacian image, using its strongest gradients."""
    whitening = kernel.new_full((1, 1, 1, 1), max(0.05, (sigma / MODEL_ERROR) ** 2))
    ridge = kernel.new_full((1, 1, 1, 1), 0.03)
    for _ in range(rounds):
        x = scale.hyper_laplacian_image(kernel, max(5e-4, 20 * sigma**2))
        energy = squared_gradient(x).sum(1, keepdim=True) * scale.inside
        count = max(1, int(_STRONGEST * scale.inside[0].sum()))
        least = energy.flatten(1).topk(count).values[:, -1].reshape(-1, 1, 1, 1)
        selected = scale.inside * (energy >= least)
        auto, cross = scale.kernel_equations(x, selected, whitening, kernel.shape[-1])
        kernel = cleaned(unconstrained_kernel(auto, cross, ridge), kernel)
    return kernel
