"""The alternation of image and kernel steps, coarse to fine; `gradient_start` names the papers behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

import latentdem_ext as ext

from .gradient_input import GradientInput
from .gradient_scale import cleaned, positive_kernel, resize
from .gradient_score import MODEL_ERROR

COARSEST = 3  # kernel width at the coarsest scale; long kernels are lost when it is 5
_SCALE_RATIO = math.sqrt(2)
ROUNDS = 5  # alternations per scale (IPOL 2019); 8 gain little
PENALTY_FALL, LEAST_PENALTY = 1.1, 1e-4  # lambda is divided by 1.1 after each alternation (IPOL 2019)


@dataclass(frozen=True)
class GradientSettings:
    """The settings that a kernel estimate depends on most; each makes one hypothesis.

    Attributes:
        penalty: lambda of the first alternation, larger for wide kernels, smaller where fine detail is needed.
        whitening: lower bound of w, whatever the noise.
        last_weight: weight where the splitting ends.
        first_weight: the splitting's first weight, in units of lambda.
        growth: factor between the splitting's weights; 4 keeps kernels sharper, 2 is more stable.
        ridge: weight of ||k||^2, in units of the energy of the gradients.
        frame: width, in kernel sizes, of the border whose gradients are left out.
    """

    penalty: float
    whitening: float
    last_weight: float
    first_weight: float = 8.0
    growth: float = 2.0
    ridge: float = 0.03
    frame: float = 0.15


# Where the splitting ends changes little in most photographs, and with long kernels which minimum is found.
SETTINGS = (
    GradientSettings(8e-3, 0.3, last_weight=80),
    GradientSettings(5e-2, 0.3, last_weight=320),
    GradientSettings(2e-2, 1.0, last_weight=320),
    GradientSettings(8e-3, 0.3, last_weight=1280),
    GradientSettings(5e-2, 0.3, last_weight=1280),
    GradientSettings(2e-2, 1.0, last_weight=80),
    GradientSettings(8e-3, 0.3, last_weight=20),
    GradientSettings(5e-2, 0.3, last_weight=20),
    GradientSettings(2e-2, 1.0, last_weight=20),
)


def widths_to(kernel_size: int) -> list[int]:
    """Odd kernel widths from the coarsest scale to full size."""
    widths = [kernel_size]
    while widths[-1] > COARSEST:
        widths.append(max(COARSEST, int(widths[-1] / _SCALE_RATIO) | 1))
    return widths[::-1]


def first_kernels(count: int, like: Tensor) -> Tensor:
    """Kernels (count, 1, COARSEST, COARSEST) to begin with."""
    kernel = like.new_zeros((count, 1, COARSEST, COARSEST))
    kernel[..., 1, :2] = 0.5  # two neighbours: the iteration would never leave a single pixel
    return kernel


def alternate(
    inputs: GradientInput,
    settings: Sequence[GradientSettings],
    kernel: Tensor,
    widths: Sequence[int],
    sigma: float,
) -> Tensor:
    """Kernels (N, 1, K, K) after the alternation at some of the scales of the photographs.

    Args:
        inputs: the photographs; their number times that of the hypotheses of each is N.
        settings: of each of the N.
        kernel: (N, 1, K', K') to begin with.
        widths: of the kernel at these scales, some of `widths_to` in a row; the last one is K.
        sigma: standard deviation of the noise at full size, in units of [0, 1].
    """
    size = inputs.kernel_size
    penalty, whitening, first_weight, growth, last_weight, ridge = (
        kernel.new_tensor([getattr(one, name) for one in settings]).view(-1, 1, 1, 1)
        for name in ("penalty", "whitening", "first_weight", "growth", "last_weight", "ridge")
    )
    for width in widths:
        step, factor = widths_to(size).index(width), width / size
        scale = inputs.scale(width, [one.frame for one in settings])
        if kernel.shape[-1] != width:
            kernel = ext.project_kernel(resize(kernel, (width, width)))
        # Resizing averages the noise.
        least = whitening.clamp_min((sigma * factor / MODEL_ERROR) ** 2)
        for fall in range(step * ROUNDS, (step + 1) * ROUNDS):
            present = (penalty / PENALTY_FALL**fall).clamp_min(LEAST_PENALTY)
            x = scale.l0_image(kernel, present, first_weight, growth, last_weight)
            auto, cross = scale.kernel_equations(x, scale.inside, least, width)
            kernel = cleaned(positive_kernel(auto, cross, ridge, kernel), kernel)
    return kernel
