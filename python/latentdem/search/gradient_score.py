"""How well a kernel explains the edges of a photograph, for the order in which kernels are tried."""

from __future__ import annotations

import torch
from torch import Tensor

import latentdem_ext as ext

from ..checks import check_kernel_size
from ..operators.blur import pad_kernel
from ..solver.measurement import Measurement
from .gradient_input import GradientInput
from .gradient_scale import TINY, Scale, squared_gradient

MODEL_ERROR = 0.007  # sigma_m in units of [0, 1]: what a blur model leaves unexplained of a photograph
SCORE_FRAME = 0.25  # border whose gradients are left out, in kernel sizes
_PENALTIES = (4e-4, 1e-4)  # lambdas; the larger detects turned kernels, the smaller separates similar ones


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
    sigma = (noise_sigma or 0.0) / 2 * _noise_of_mean(y).repeat_interleave(kernels.shape[1])
    return scores_at(full_scale(inputs), flat, sigma).reshape(len(y), -1)


@torch.no_grad()
def turned_lead(measurement: Measurement, kernels: Tensor) -> Tensor:
    """By how much the score of the kernel turned by 180 degrees is worse than that of the kernel, (B,).

    A right kernel leads, unless it is symmetric. The lead of one that has little to do with the photograph, or
    is a small part of the blur, is near zero, and that of a turned one is negative.

    Args:
        measurement: B photographs on their own pixels.
        kernels: (B, 1, K, K), one for each.
    """
    size = kernels.shape[-1]
    odd = pad_kernel(kernels, max(size + 1 - size % 2, 3))  # so that a turned kernel has the same centre
    leads = []
    for n in range(len(measurement)):
        one = measurement.rows(slice(n, n + 1))
        both = torch.stack([odd[n], odd[n].flip(-2, -1)])[None]
        scores = score_kernels(one.y, both, mask=one.mask, noise_sigma=float(one.sigma), circular=one.circular)[
            0
        ]
        leads.append(scores[1] - scores[0])
    return torch.stack(leads)


def kernel_radius(kernels: Tensor) -> Tensor:
    """Root mean square distance (N,) of kernels (N, 1, K, K) from their centres of mass, in pixels."""
    offsets = torch.arange(kernels.shape[-1], dtype=kernels.dtype, device=kernels.device)
    total = kernels.sum((1, 2, 3)).clamp_min(TINY)
    variance = torch.zeros_like(total)
    for axis in (-1, -2):
        profile = kernels.sum((1, axis)) / total[:, None]
        mean = (profile * offsets).sum(1, keepdim=True)
        variance = variance + (profile * (offsets - mean).square()).sum(1)
    return variance.sqrt()


def full_scale(inputs: GradientInput) -> Scale:
    """The full size of photographs, without the frame that scores leave out."""
    return inputs.scale(inputs.kernel_size, [SCORE_FRAME] * len(inputs.grey) * inputs.repeats)


def _noise_of_mean(y: Tensor) -> Tensor:
    """Noise (B,) of the mean of the channels of y (B, C, H, W), by that of a channel.

    From C^-1/2 where the noise of the channels is independent to 1 where they are equal. With more noise than
    the mean has, estimates that follow this noise, being made from it, would score better than true kernels.
    """
    detail = y.float().diff(n=2, dim=-1).diff(n=2, dim=-2)  # of which a blurred photograph itself has little
    of_mean, of_channels = (part.abs().flatten(1).median(1).values for part in (detail.mean(1), detail))
    return (of_mean / of_channels.clamp_min(TINY)).clamp(y.shape[1] ** -0.5, 1)


def scores_at(scale: Scale, kernel: Tensor, sigma: float | Tensor) -> Tensor:
    """(N,) mean log root mean square of the whitened gradients of y - k * x, for x with few edges.

    A wrong kernel needs edges that the image does not have. Among the measures compared (energies, residuals,
    |D x|_1 / |D x|_2 of Krishnan et al., 2011, agreement with other estimates) this one ranked kernels best.

    Args:
        scale: N photographs at one scale.
        kernel: (N, 1, K, K).
        sigma: standard deviation of the noise at this scale, in units of [0, 1]; a tensor (N,) gives one each.
    """
    sigma = torch.as_tensor(sigma, dtype=kernel.dtype, device=kernel.device).view(-1, 1, 1, 1)
    one = torch.ones((len(kernel), 1, 1, 1), dtype=kernel.dtype, device=kernel.device)
    otf = ext.kernel_to_otf(kernel, scale.size)
    whitening = (1 + (sigma / MODEL_ERROR) ** 2 * scale.gradient_power).rsqrt()
    total = torch.zeros(len(kernel), device=kernel.device)
    for least in _PENALTIES:
        penalty = (4 * sigma**2).clamp_min(least)  # noise must not pass for an edge
        x = scale.l0_image(kernel, penalty * one, 8 * one, 2 * one, 20 * one)
        residual = torch.fft.irfft2(whitening * (otf * torch.fft.rfft2(x) - scale.spectrum), s=scale.size)
        energy = squared_gradient(residual).mean(1, keepdim=True) * scale.inside
        mean = energy.flatten(1).sum(1) / scale.inside.flatten(1).sum(1).clamp_min(1)
        total = total + (mean + TINY).log() / 2
    return total / len(_PENALTIES)
