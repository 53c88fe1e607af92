"""Blur that is not one kernel for all: varying over the image, or in light rather than in grey levels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import latentdem_ext as ext

from .families import RoundGaussianKernels
from .masked import MaskedKernelUpdate
from .parametric import Parameter, Parametric
from .pixelwise import light
from .priors import Gaussian, Range, Simplex


class VaryingBlur(Parametric):
    """y = sum_g w_g (k_g * x) + n: G x G kernels on a grid over the image, bilinearly interpolated; circular.

    The M-step solves for one kernel after the other by the masked least squares of `Blur`: of what the others
    leave of y, over w_g, with w_g^2 in the place of the mask.

    Args:
        kernel_size: K.
        height, width: of the image.
        grid: G, at least 2.
        denoise: plug-and-play denoiser (kernel (B, 1, K, K), level) -> kernel; None for none.
    """

    def __init__(
        self,
        kernel_size: int,
        height: int,
        width: int,
        grid: int = 2,
        denoise: Callable[[Tensor, float], Tensor] | None = None,
    ) -> None:
        self.grid, self._denoise = grid, denoise
        delta = torch.zeros(grid * grid, kernel_size, kernel_size)
        delta[:, kernel_size // 2, kernel_size // 2] = 1
        self.parameters = {"kernels": Parameter(delta, (Simplex(),))}
        unit = torch.eye(grid * grid).view(-1, 1, grid, grid)
        self.weights = F.interpolate(unit, (height, width), mode="bilinear", align_corners=True)

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        kernels, weights = values["kernels"], self.weights.to(x)
        parts = (weights[g] * ext.blur(x, kernels[:, g : g + 1].contiguous()) for g in range(len(weights)))
        return torch.stack(list(parts)).sum(0)

    def m_step(self, x: Tensor, y: Tensor, parameters: Tensor, variance: Tensor) -> Tensor:
        kernels = self.unpack(parameters)["kernels"].clone()
        samples, weights = x.clamp(-1, 1), self.weights.to(y)
        mean = samples.mean(1)
        for g, weight in enumerate(weights):
            one = slice(g, g + 1)
            others = self.apply(mean, kernels=kernels) - weight * ext.blur(mean, kernels[:, one].contiguous())
            left = (y - others) / weight.clamp_min(1e-3)
            update = MaskedKernelUpdate(samples, left, weight[None].square(), _DELTA * variance)
            kernel = kernels[:, one]
            for _ in range(_ITERATIONS):
                kernel = update(kernel)
                if self._denoise is not None:
                    kernel = ext.project_kernel(self._denoise(kernel, _LEVEL))
            kernels[:, one] = kernel
        return self.pack({"kernels": kernels})


_DELTA, _ITERATIONS, _LEVEL = 1e6, 3, 0.05  # of the M-step, those of the blind search


class CameraResponse(Parametric):
    """Blur in linear light, recorded by a camera: y = 2 (g_sigma * u^gamma)^(1 / gamma) - 1 + n.

    u = (x + 1) / 2; g_sigma is a round Gaussian, circular.

    Args:
        kernel_size: K of the Gaussian's array, odd.
    """

    linear = False

    def __init__(self, kernel_size: int = 25) -> None:
        self._kernel = partial(RoundGaussianKernels().kernel, size=kernel_size)
        self.parameters = {
            "sigma": Parameter(min(2.0, kernel_size / 8), (Range(0.25, kernel_size / 4),), 0.05),
            "gamma": Parameter(2.2, (Range(1.0, 4.0), Gaussian(2.2, 0.3))),
        }

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        gamma = values["gamma"].view(-1, 1, 1, 1)
        blurred = ext.blur(light(x) ** gamma, self._kernel(values["sigma"].view(-1, 1)))
        return 2 * blurred.clamp(1e-6, 1) ** (1 / gamma) - 1


class PhaseRetrieval(Parametric):
    """y = |F P x| + n: the magnitude of the orthonormal transform of the image in a frame of black.

    The frame makes the lattice twice as wide and high, without which the magnitude does not determine an image.
    What it leaves open is the image turned by 180 degrees.
    """

    linear = False
    ambiguous = True
    parameters: dict[str, Parameter] = {}  # noqa: RUF012

    def image_size(self, y: Tensor) -> tuple[int, int]:
        return y.shape[-2] // 2, y.shape[-1] // 2

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        framed = F.pad((x + 1) / 2, (0, width, 0, height))
        spectrum = torch.fft.fft2(framed, norm="ortho")
        return (spectrum.real.square() + spectrum.imag.square() + 1e-8).sqrt()
