"""Optical models beyond one blur kernel: varying blur, blur in linear light, and phase retrieval."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import latentdem_ext as ext

from .families import RoundGaussianKernels
from .masked import MaskedKernelUpdate
from .parameter_priors import Gaussian, Range, Simplex
from .parametric import Parameter, Parametric
from .pixelwise import light


class VaryingBlur(Parametric):
    """y = sum_g w_g (k_g * x) + n: G x G kernels on a grid over the image, bilinearly interpolated; circular.

    The M-step solves for one kernel after the other by the masked least squares of `Blur`: the measurement is y
    without the contributions of the other kernels, divided by w_g, and the mask is w_g^2.

    Args:
        kernel_size: K.
        height, width: size of the image.
        grid: kernels along one side G, at least 2.
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
            remainder = (y - others) / weight.clamp_min(1e-3)
            update = MaskedKernelUpdate(samples, remainder, weight[None].square(), _DELTA * variance)
            kernel = kernels[:, one]
            for _ in range(_ITERATIONS):
                kernel = update(kernel)
                if self._denoise is not None:
                    kernel = ext.project_kernel(self._denoise(kernel, _LEVEL))
            kernels[:, one] = kernel
        return self.pack({"kernels": kernels})


_DELTA, _ITERATIONS, _LEVEL = 1e6, 3, 0.05  # settings of the M-step, as in the blind search


class CameraResponse(Parametric):
    """Blur in linear light, recorded with a gamma curve: y = 2 (g_sigma * u^gamma)^(1 / gamma) - 1 + n.

    u = (x + 1) / 2; g_sigma is an isotropic Gaussian, and the convolution is circular.

    Args:
        kernel_size: width K of the K x K Gaussian, odd.
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
    """y = |F P x| + n: the magnitude of the orthonormal transform of the zero-padded image.

    The padded grid P x is twice as wide and high as x; without padding the magnitude does not determine an
    image. Even so, an image and its rotation by 180 degrees have the same magnitude.
    """

    linear = False
    ambiguous = True
    parameters: dict[str, Parameter] = {}  # noqa: RUF012

    def image_size(self, y: Tensor) -> tuple[int, int]:
        return y.shape[-2] // 2, y.shape[-1] // 2

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad((x + 1) / 2, (0, width, 0, height))
        spectrum = torch.fft.fft2(padded, norm="ortho")
        return (spectrum.real.square() + spectrum.imag.square() + 1e-8).sqrt()
