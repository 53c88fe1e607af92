"""Blur kernels from the strong gradients of restored images: the M-step of the fast start."""

from __future__ import annotations

import torch
from torch import Tensor

from ..solver.measurement import Measurement
from .gradient_input import WINDOW_SIZE, GradientInput, edge_window
from .gradient_scale import cleaned, extended, squared_gradient, unconstrained_kernel
from .gradient_score import MODEL_ERROR

_STRONGEST = 0.3  # share of the gradients that is used; .1 and 1 gave less on captures
_WHITENING = 0.2  # least w of `Scale.kernel_equations`
_RIDGE = 0.03  # weight of ||k||^2, in units of the energy of the gradients
_FRAME = 0.25  # border whose gradients are left out, in kernel sizes


@torch.no_grad()
def kernels_from_images(
    measurement: Measurement, images: Tensor, kernel_size: int, shared: bool = False
) -> Tensor:
    """Least squares for the kernels that map the strongest gradients of images to those of the measurement.

    Faint values and small parts of the solutions are removed, as in the gradient-based start. A prior on whole
    images makes the images sharper than gradients alone do, and the kernels from them better.

    Args:
        measurement: B photographs on their own pixels.
        images: (B * H, C, h, w) in [-1, 1], the H restorations of one photograph next to each other.
        kernel_size: K.
        shared: whether the photographs have one kernel: their least squares are summed then, for each of the H.

    Returns:
        (B * H, 1, K, K), non-negative, sum 1, centre of mass at K // 2 to the nearest pixel.
    """
    window = edge_window(measurement.y, WINDOW_SIZE, kernel_size, measurement.mask)
    part, images = measurement.window(*window), images[..., window[0], window[1]]
    odd, repeats = kernel_size + 1 - kernel_size % 2, len(images) // len(measurement)
    inputs = GradientInput.of(part.y, odd, part.mask, part.circular, repeats)
    scale = inputs.scale(odd, [_FRAME] * len(images))
    x = (images.mean(1, keepdim=True) + 1) / 2
    x = x if part.circular else extended(x, odd)
    energy = squared_gradient(x).sum(1, keepdim=True) * scale.inside
    count = max(1, int(_STRONGEST * scale.inside[0].sum()))
    least = energy.flatten(1).topk(count).values[:, -1].view(-1, 1, 1, 1)
    one = torch.ones_like(least)
    whitening = (part.sigma / 2 / MODEL_ERROR).square().clamp_min(_WHITENING).repeat_interleave(repeats)
    auto, cross = scale.kernel_equations(x, scale.inside * (energy >= least), whitening.view_as(one), odd)
    if shared:
        auto, cross = (
            part.unflatten(0, (-1, repeats)).sum(0).repeat(len(measurement), 1, 1, 1) for part in (auto, cross)
        )
    kernels = unconstrained_kernel(auto, cross, _RIDGE * one)
    kernels = kernels[..., :kernel_size, :kernel_size]  # an even K has the same origin, K // 2
    return cleaned(kernels, _centred_delta(kernels))


def _centred_delta(kernels: Tensor) -> Tensor:
    delta = torch.zeros_like(kernels)
    delta[..., kernels.shape[-2] // 2, kernels.shape[-1] // 2] = 1
    return delta
