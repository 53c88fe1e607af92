"""Classical baselines: Richardson-Lucy, Wiener and total-variation deconvolution."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from skimage.restoration import denoise_tv_chambolle, unsupervised_wiener
from torch import Tensor

import latentdem_ext as ext

from ..operators.blur import HQS, Blur
from ..operators.kernels import gaussian_kernel
from ..output.result import Result
from .cases import Task

_WIDTH = 0.15  # standard deviation of the first Gaussian kernel in units of K
_DARKEST = 1e-3  # of [0, 1]: Richardson-Lucy divides by the prediction


@dataclass(frozen=True)
class BlindRichardsonLucy:
    """Blind Richardson-Lucy (Fish et al., 1995): image and kernel in turn, starting from a Gaussian kernel.

    With u and y in [0, 1], circular convolution k * u and the ratio r = y / (k * u):
    u <- u A_k^T r, k <- k A_u^T r cropped to K x K and divided by its sum. The image is updated first: it
    starts as y, which only the no-blur kernel explains.

    Attributes:
        rounds: number of rounds, in each of which both are updated.
        updates: updates of the image, then of the kernel, per round.
    """

    rounds: int = 20
    updates: int = 5

    def __call__(self, task: Task) -> Result:
        started = perf_counter()
        y = _unit(task.blurred).clamp_min(_DARKEST)
        u, kernel = y.clone(), _first_kernel(task)
        for done in range(self.rounds):
            task.progress("Richardson-Lucy", done, self.rounds)
            for _ in range(self.updates):
                u = _updated(u, y, kernel)
            for _ in range(self.updates):
                kernel = ext.project_kernel(
                    kernel * _correlation(u, y / _prediction(u, kernel), kernel.shape[-1])
                )
        return _result(task, 2 * u - 1, kernel, started)


@dataclass(frozen=True)
class KnownRichardsonLucy:
    """Richardson-Lucy with the true kernel and circular convolution, which that of scikit-image lacks.

    Attributes:
        iterations: number of updates; more of them amplify the noise.
    """

    iterations: int = 30

    def __call__(self, task: Task) -> Result:
        started = perf_counter()
        u = y = _unit(task.blurred).clamp_min(_DARKEST)
        for _ in range(self.iterations):
            u = _updated(u, y, task.kernel)
        return _result(task, 2 * u - 1, task.kernel, started)


@dataclass(frozen=True)
class KnownWiener:
    """Wiener filter with the true kernel and estimated variances (Orieux et al., 2010), by scikit-image."""

    def __call__(self, task: Task) -> Result:
        started = perf_counter()
        restored = [
            [
                unsupervised_wiener(channel, kernel[0], clip=False, rng=task.settings.seed)[0]
                for channel in image
            ]
            for image, kernel in zip(
                _unit(task.blurred).double().numpy(), task.kernel.double().numpy(), strict=True
            )
        ]
        image = 2 * torch.from_numpy(np.asarray(restored)).float() - 1
        return _result(task, image, task.kernel, started)


@dataclass(frozen=True)
class BlindTotalVariation:
    """Total-variation blind deconvolution (Chan and Wong, 1998), starting from a Gaussian kernel.

    min ||y - k * x||^2 + a TV(x) + b TV(k), image and kernel in turn, each by half-quadratic splitting: a
    closed form for the data and scikit-image's Chambolle iteration for the variation. The weight of
    the image falls from round to round (Perrone and Favaro, 2014) to avoid the no-blur solution.

    Attributes:
        rounds: number of rounds, in each of which both are updated.
        first, last: weight of the variation of the image in [0, 1], in the first and the last round.
        kernel_weight: weight of the variation of the kernel scaled to peak 1.
    """

    rounds: int = 30
    first: float = 0.2
    last: float = 0.01
    kernel_weight: float = 0.05

    def __call__(self, task: Task) -> Result:
        started = perf_counter()
        y, kernel = task.blurred, _first_kernel(task)
        weight = self.kernel_weight

        def smooth(k: Tensor, level: Tensor) -> Tensor:
            return k.amax((1, 2, 3), keepdim=True) * _smoothed(k / k.amax((1, 2, 3), keepdim=True), weight)

        operator = Blur(kernel.shape[-1], smooth, HQS(5, 1e6, noise_level=weight))
        x, variance = y, torch.full((len(y),), task.settings.noise_sigma**2)
        for done, image_weight in enumerate(np.geomspace(self.first, self.last, self.rounds)):
            task.progress("total variation", done, self.rounds)
            # The variance of the splitting is that of the detail which the smoothing removes.
            smoothed = _smoothed((x + 1) / 2, float(image_weight)) * 2 - 1
            kernel = operator.m_step(smoothed[:, None], y, kernel, variance)
            rho = variance / (2 * float(image_weight)) ** 2
            x = operator.proximal(smoothed, kernel, y, rho).clamp(-1, 1)
        image = _smoothed((x + 1) / 2, self.last) * 2 - 1
        return _result(task, image, kernel, started)


def _result(task: Task, image: Tensor, kernel: Tensor, started: float) -> Result:
    sigma = torch.full((len(image),), task.settings.noise_sigma)
    image = image.clamp(-1, 1)
    residual = Blur(kernel.shape[-1]).residual(image, kernel, task.blurred)
    seconds = {"total": perf_counter() - started}
    return Result(image, kernel, task.blurred, sigma, residual, seconds=seconds)


def _unit(image: Tensor) -> Tensor:
    return (image + 1) / 2


def _first_kernel(task: Task) -> Tensor:
    size = task.kernel.shape[-1]
    return gaussian_kernel(size, _WIDTH * size).repeat(len(task.blurred), 1, 1, 1)


def _prediction(u: Tensor, kernel: Tensor) -> Tensor:
    return ext.blur(u, kernel).clamp_min(_DARKEST)


def _updated(u: Tensor, y: Tensor, kernel: Tensor) -> Tensor:
    """Next image (B, C, H, W) of Richardson-Lucy."""
    return u * ext.blur_adjoint(y / _prediction(u, kernel), kernel)


def _correlation(u: Tensor, ratio: Tensor, size: int) -> Tensor:
    """A_u^T r / sum of u: (B, 1, K, K) of sums over n and channels of u[n - m] r[n], origin at K // 2."""
    product = torch.fft.rfft2(u).conj() * torch.fft.rfft2(ratio)
    full = torch.fft.irfft2(product, s=u.shape[-2:]).sum(1, keepdim=True)
    centred = full.roll((size // 2, size // 2), (-2, -1))[..., :size, :size]
    return centred / u.sum((1, 2, 3), keepdim=True)


def _smoothed(image: Tensor, weight: float) -> Tensor:
    """Images (B, C, H, W) after Chambolle's total-variation denoising, channels together."""
    smooth = [denoise_tv_chambolle(x.double().numpy(), weight, channel_axis=0) for x in image]
    return torch.from_numpy(np.stack(smooth)).to(image)
