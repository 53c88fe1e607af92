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

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import latentdem_ext as ext

from ..checks import check_kernel_size
from ..errors import UserError
from ..operators.blur import crop_kernel, pad_kernel
from ..solver.measurement import Measurement
from .gradient_input import GradientInput
from .gradient_scale import (
    TINY,
    Scale,
    cleaned,
    positive_kernel,
    resize,
    squared_gradient,
    unconstrained_kernel,
)

_COARSEST = 3  # kernel width at the coarsest scale; long kernels are lost when it is 5
_SCALE_RATIO = math.sqrt(2)
_ROUNDS = 5  # alternations per scale (IPOL 2019); 8 gain little
_PENALTY_FALL, _LEAST_PENALTY = 1.1, 1e-4  # lambda is divided by 1.1 after each alternation (IPOL 2019)
_MODEL_ERROR = 0.007  # sigma_m in units of [0, 1]: what a blur model leaves unexplained of a photograph
_STRONGEST = 0.1  # share of the gradients that the refinement uses
_SCORE_PENALTIES = (
    4e-4,
    1e-4,
)  # lambdas; the larger detects turned kernels, the smaller separates similar ones
_SCORE_FRAME = 0.25  # of the refinement and the score, in kernel sizes
_ROOM = 1.6  # size of the larger frame in which a kernel of a given size is estimated too
_AUTOMATIC = (15, 27, 45, 75)  # kernel sizes that are tried where none is given


@dataclass(frozen=True)
class GradientSettings:
    """The settings that a kernel estimate depends on most; each makes one hypothesis.

    Attributes:
        penalty: lambda of the first alternation, larger for wide kernels, smaller where fine detail is needed.
        first_weight: the splitting's first weight, in units of lambda.
        growth: factor between the splitting's weights; 4 keeps kernels sharper, 2 is more stable.
        whitening: lower bound of w, whatever the noise.
        ridge: weight of ||k||^2, in units of the energy of the gradients.
        frame: width, in kernel sizes, of the border whose gradients are left out.
    """

    penalty: float
    first_weight: float
    growth: float
    whitening: float
    ridge: float
    frame: float


SETTINGS = (
    GradientSettings(penalty=8e-3, first_weight=8, growth=2, whitening=0.3, ridge=0.03, frame=0.15),
    GradientSettings(penalty=5e-2, first_weight=8, growth=2, whitening=0.3, ridge=0.03, frame=0.15),
    GradientSettings(penalty=2e-2, first_weight=8, growth=2, whitening=1, ridge=0.03, frame=0.15),
    GradientSettings(penalty=2e-2, first_weight=2, growth=2, whitening=0, ridge=0.01, frame=0.15),
)


@torch.no_grad()
def starts_for(
    measurement: Measurement, kernel_size: int, sizes: tuple[int, ...], settings: tuple[GradientSettings, ...]
) -> tuple[Tensor, Tensor]:
    """Kernels to start a search from, estimated at several sizes, best score first.

    The kernels of a photograph do not depend on the others of its batch.

    Args:
        measurement: photographs on their own pixels, not on a padded grid.
        kernel_size: K of the results; larger estimates are cropped, and lose what lies outside.
        sizes: at which kernels are estimated, from 3 to the smaller side of the photographs.
        settings: each gives one hypothesis per size.

    Returns:
        Kernels (B, H, 1, K, K), float32, non-negative, sum 1, and scores (B, H) as `score_kernels` gives them,
        ascending; H is the number of settings times that of sizes.

    Raises:
        UserError: a size is below 3 or above the smaller side.
    """
    mask, circular, largest = measurement.mask, measurement.circular, max(*sizes, kernel_size)
    kernels, scores = [], []
    for n in range(len(measurement)):
        y, sigma = measurement.y[n : n + 1], float(measurement.sigma[n])
        estimates = [
            estimate_kernels(y, size, mask=mask, noise_sigma=sigma, circular=circular, settings=settings)[0]
            for size in sizes
        ]
        joined = torch.cat([pad_kernel(estimate, largest) for estimate in estimates], 1)
        score = score_kernels(y, joined, mask=mask, noise_sigma=sigma, circular=circular)
        ordered, score = _sorted(joined, score)
        kernels.append(ext.project_kernel(crop_kernel(ordered[0], kernel_size))[None])
        scores.append(score)
    return torch.cat(kernels), torch.cat(scores)


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
    settings: tuple[GradientSettings, ...] = SETTINGS,
) -> tuple[Tensor, Tensor]:
    """Estimates one kernel of each blurred photograph for each of the settings, best score first.

    Args:
        y: (B, C, H, W) in [-1, 1]; the mean of the channels is used, in one window for the whole batch.
        kernel_size: K, at least 3; a longer path of the camera is cut off.
        mask: (B or 1, 1, H, W), 1 where the measurement counts, 0 where it does not (saturated, dead pixels).
        noise_sigma: standard deviation of the noise in units of [-1, 1]; None for very little.
        circular: whether the blur wraps around; otherwise light came in from beyond the frame.
        settings: S hypotheses.

    Returns:
        Kernels (B, S, 1, K, K), float32, non-negative, sum 1, centre of mass at K // 2 to the nearest pixel;
        scores (B, S), ascending, lower is better. Compare scores of one photograph and one size only:
        `score_kernels` makes estimates of several sizes comparable.

    Raises:
        UserError: the size is below 3 or above the smaller side of the photographs, or there are no settings.
    """
    check_kernel_size(kernel_size, *y.shape[-2:])
    if not settings:
        raise UserError("Give at least one of the settings for the gradient-based start.")
    odd = kernel_size - 1 + kernel_size % 2
    inputs = GradientInput.of(y, odd, mask, circular, len(settings))
    sigma = (noise_sigma or 0.0) / 2
    scale = _full_scale(inputs)
    kernels = _refined(scale, _coarse_to_fine(inputs, list(settings) * len(y), sigma), sigma)
    scores = _scores(scale, kernels, sigma).reshape(len(y), -1)
    return _sorted(pad_kernel(kernels.unflatten(0, scores.shape), kernel_size), scores)


@torch.no_grad()
def score_kernels(
    y: Tensor,
    kernels: Tensor,
    *,
    mask: Tensor | None = None,
    noise_sigma: float | None = None,
    circular: bool = False,
) -> Tensor:
    """Scores (B, S) of kernels (B, S, 1, K, K) from any source; lower is better.

    The other arguments are those of `estimate_kernels`. A score is the natural logarithm of the root mean
    square of the whitened residual's gradients, in units of [0, 1], averaged over two deconvolutions with few
    edges. Scores of one photograph, one K and one noise level are comparable: kernels of several sizes have to
    be padded to the largest, since the window and the frame follow K.

    Raises:
        UserError: K is below 3 or above the smaller side of the photographs.
    """
    size = kernels.shape[-1]
    check_kernel_size(size, *y.shape[-2:])
    inputs = GradientInput.of(y, size + 1 - size % 2, mask, circular, kernels.shape[1])
    flat = kernels.to(inputs.grey).flatten(0, 1)
    return _scores(_full_scale(inputs), flat, (noise_sigma or 0.0) / 2).reshape(len(y), -1)


def _sorted(kernels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Kernels (B, S, 1, K, K) and scores (B, S) in the order of the scores."""
    scores, order = scores.sort(dim=1, stable=True)
    return kernels.gather(1, order[:, :, None, None, None].expand_as(kernels)), scores


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, 1, 1, 1)


def _full_scale(inputs: GradientInput) -> Scale:
    return inputs.scale(inputs.kernel_size, [_SCORE_FRAME] * len(inputs.grey) * inputs.repeats)


def _coarse_to_fine(inputs: GradientInput, settings: list[GradientSettings], sigma: float) -> Tensor:
    """Kernels (N, 1, K, K) before the refinement, each with its own settings; `sigma` in units of [0, 1]."""
    y, size = inputs.grey, inputs.kernel_size
    penalty, first_weight, growth, least_whitening, ridge = (
        _column([getattr(one, name) for one in settings], y)
        for name in ("penalty", "first_weight", "growth", "whitening", "ridge")
    )
    kernel = y.new_zeros((len(settings), 1, _COARSEST, _COARSEST))
    kernel[..., 1, :2] = 0.5  # two neighbours: the iteration would never leave a single pixel
    for width in _widths(size):
        factor = width / size
        scale = inputs.scale(width, [one.frame for one in settings])
        if kernel.shape[-1] != width:
            kernel = ext.project_kernel(resize(kernel, (width, width)))
        # Resizing averages the noise.
        whitening = least_whitening.clamp_min((sigma * factor / _MODEL_ERROR) ** 2)
        for _ in range(_ROUNDS):
            x = scale.l0_image(kernel, penalty, first_weight, growth)
            auto, cross = scale.kernel_equations(x, scale.inside, whitening, width)
            kernel = cleaned(positive_kernel(auto, cross, ridge, kernel), kernel)
            penalty = (penalty / _PENALTY_FALL).clamp_min(_LEAST_PENALTY)
    return kernel


def _widths(kernel_size: int) -> list[int]:
    """Odd kernel widths from the coarsest scale to full size."""
    widths = [kernel_size]
    while widths[-1] > _COARSEST:
        widths.append(max(_COARSEST, int(widths[-1] / _SCALE_RATIO) | 1))
    return widths[::-1]


def _refined(scale: Scale, kernel: Tensor, sigma: float, rounds: int = 3) -> Tensor:
    """Kernels (N, 1, K, K) after alternating with a hyper-Laplacian image, using its strongest gradients."""
    whitening = _column([max(0.05, (sigma / _MODEL_ERROR) ** 2)], kernel)
    ridge = _column([0.03], kernel)
    for _ in range(rounds):
        x = scale.hyper_laplacian_image(kernel, max(5e-4, 20 * sigma**2))
        energy = squared_gradient(x).sum(1, keepdim=True) * scale.inside
        count = max(1, int(_STRONGEST * scale.inside[0].sum()))
        least = energy.flatten(1).topk(count).values[:, -1].reshape(-1, 1, 1, 1)
        selected = scale.inside * (energy >= least)
        auto, cross = scale.kernel_equations(x, selected, whitening, kernel.shape[-1])
        kernel = cleaned(unconstrained_kernel(auto, cross, ridge), kernel)
    return kernel


def _scores(scale: Scale, kernel: Tensor, sigma: float) -> Tensor:
    """(N,) mean log root mean square of the whitened gradients of y - k * x, for x with few edges.

    A wrong kernel needs edges that the image does not have. Among the measures compared (energies, residuals,
    |D x|_1 / |D x|_2 of Krishnan et al., 2011, agreement with other estimates) this one ranked kernels best.
    """
    one = torch.ones((len(kernel), 1, 1, 1), dtype=kernel.dtype, device=kernel.device)
    otf = ext.kernel_to_otf(kernel, scale.size)
    whitening = (1 + (sigma / _MODEL_ERROR) ** 2 * scale.gradient_power).rsqrt()
    total = torch.zeros(len(kernel), device=kernel.device)
    for least in _SCORE_PENALTIES:
        penalty = max(least, 4 * sigma**2)  # noise must not pass for an edge
        x = scale.l0_image(kernel, penalty * one, 8 * one, 2 * one)
        residual = torch.fft.irfft2(whitening * (otf * torch.fft.rfft2(x) - scale.spectrum), s=scale.size)
        energy = squared_gradient(residual).mean(1, keepdim=True) * scale.inside
        mean = energy.flatten(1).sum(1) / scale.inside.flatten(1).sum(1).clamp_min(1)
        total = total + (mean + TINY).log() / 2
    return total / len(_SCORE_PENALTIES)
