"""Blur with an unknown K x K kernel: Eq. 10, 11 and 17-19 of the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext.reference.masked import MAX_ITERATIONS

from ..priors.kernel_denoiser import network_of
from .base import Operator
from .centring import centre_kernel
from .limits import Limits
from .masked import MaskedKernelUpdate, asks, eroded, most_iterations


@dataclass(frozen=True)
class HQS:
    """Settings of the M-step: half-quadratic splitting with a plug-and-play kernel denoiser.

    Attributes:
        iterations: HQS iterations per M-step (paper: 20).
        delta: weight of the splitting; delta * sigma^2 is the weight `a` in the filter (paper: 5e6).
        pixels: number of pixels of the image that `delta` is meant for. It weighs against a sum over pixels, so
            it is scaled with their number for other images; None leaves it as it is.
        noise_level: noise level given to the denoiser, in units of the kernel's peak; None takes the paper's
            sqrt(lambda / delta) with lambda = 1, in absolute units. A tensor (B,) gives one per sample.
        centre: move the kernel by whole pixels so that its centre of mass is at K // 2 after each M-step.
        per_channel: solve for each colour channel alone and take the mean, as FastDiffusionEM does, instead of
            one least-squares problem over all of them; only without a mask.
        gradients: least squares on the differences to the next pixel across and down, as channels, in place of
            intensities. White noise of variance sigma^2 makes differences of variance 2 sigma^2; `delta` weighs
            against their sum of squares, and the variance given to `m_step` remains that of y - k * x. With a
            mask a difference counts where both of its pixels do.
    """

    iterations: int = 20
    delta: float = 5e6
    pixels: int | None = None
    noise_level: float | Tensor | None = None
    centre: bool = False
    per_channel: bool = False
    gradients: bool = False


@runtime_checkable
class Denoiser(Protocol):
    """A denoiser of kernels, see `KernelDenoiser.denoise`."""

    def denoise(self, kernel: Tensor, noise_level: Tensor) -> Tensor:
        """Denoised kernels (B, 1, K, K) of any scale; the noise levels (B,) are relative to the peaks."""
        ...


class Blur(Operator):
    """y = k * x + n with an unknown kernel; the convolution is circular on the grid of x.

    With a `mask` only its pixels of y were measured: this is how photographs without a periodic boundary
    are treated (docs/reference/method.md, "Boundaries"). The M-step also leaves out measured pixels nearer than
    K / 4 to an unmeasured one: they depend most on content beyond the frame, which the prior has invented.

    Attributes:
        limits: of the images that `proximal` gives; None for none.

    Args:
        kernel_size: K, the kernel is (B, 1, K, K), non-negative, sum 1, origin at K // 2.
        denoiser: callable (kernel (B, 1, K, K) of any scale, level (B,) relative to the peak) -> kernel, or an
            object with such a method `denoise`, as `KernelDenoiser`; None for none.
        hqs: settings of the M-step.
        mask: (1 or B, 1, H, W), 1 where y was measured, or None when all of it was.
        fixed: the kernel is known, `m_step` returns it unchanged.
    """

    def __init__(
        self,
        kernel_size: int,
        denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor] | None = None,
        hqs: HQS | None = None,
        mask: Tensor | None = None,
        fixed: bool = False,
    ) -> None:
        self.kernel_size, self.hqs = kernel_size, hqs or HQS()
        # Calling such a network itself needs kernels scaled to peak 1.
        self.denoiser = denoiser.denoise if isinstance(denoiser, Denoiser) else denoiser
        self.mask, self.fixed = mask, fixed
        self.limits: Limits | None = None

    @cached_property
    def _interior(self) -> Tensor | None:
        """The pixels that the M-step uses; None for all of them."""
        return None if self.mask is None else eroded(self.mask, self.kernel_size // 4)

    @property
    def capturable(self) -> bool:
        return self.mask is None or not asks(self.mask, self._iterations)

    @cached_property
    def _iterations(self) -> int:
        """Of a proximal step with the mask, at most."""
        return MAX_ITERATIONS if self.mask is None else most_iterations(self.mask)

    def light(self, x: Tensor) -> Tensor:
        """What is blurred of images (..., C, H, W): the images themselves."""
        return x

    def __call__(self, x: Tensor, kernel: Tensor) -> Tensor:
        """k * x, (B, C, H, W)."""
        return ext.blur(x, kernel)

    def measured(self, y: Tensor) -> Tensor | None:
        """The mask given to the constructor."""
        return self.mask

    def adjoint(self, gap: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
        """Correlation of `gap` with k."""
        return ext.blur_adjoint(gap, kernel)

    def spectrum(self, x: Tensor, kernel: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """|F k|^2 and the orthonormal power spectrum of y - k * x over the half plane of frequencies.

        With a mask the unmeasured pixels are set to zero and the spectrum is divided by the measured share.
        """
        height, width = y.shape[-2:]
        error, share = y - self(x, kernel), y.new_ones(1, 1)
        if self.mask is not None:
            error, share = error * self.mask, self.mask.mean((1, 2, 3)).view(-1, 1)
        gain = ext.kernel_to_otf(kernel, (height, width)).abs().square().flatten(1)
        power = torch.fft.rfft2(error).abs().square().mean(1).flatten(1) / (height * width * share)
        return gain, power

    def fidelity(self, x: Tensor, kernel: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """||y - k * x||^2 (B,), its gradient in x and the gluing target x + A^T (y - k * x)."""
        return ext.blur_fidelity(x, kernel, self.fill(y, x, kernel))

    def proximal(self, x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, iterations: int = 10) -> Tensor:
        """argmin_x ||y - k * x||^2 + rho ||x - x0||^2 over the measured pixels, rho (B,), by FFT.

        `iterations` are those of the splitting that keeps `limits`, if there are any.
        """
        if self.limits is None:
            return self._unlimited(x0, kernel, y, rho)
        return self.limits.proximal(
            lambda target, weight: self._unlimited(target, kernel, y, weight), x0, rho, iterations
        )

    def _unlimited(self, x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        """`proximal` without limits: the closed form without a mask.

        With one, to the tolerance of `latentdem_ext.masked_proximal`, from the fill of the step before.
        """
        if self.mask is None:
            return ext.blur_proximal(x0, kernel, y, rho)
        fill = self.warm_start if self.warm_start is not None and self.warm_start.shape == x0.shape else None
        x, self.warm_start = ext.masked_proximal(
            x0, kernel, y, self.mask, rho, fill, iterations=self._iterations
        )
        return x

    def find_limits(self, kernel: Tensor, y: Tensor, variance: Tensor) -> None:
        """Sets `limits` from what photographs `y` (B, C, H, W) with noise of `variance` (B,) tell of them."""
        self.limits = Limits.of(
            lambda x0, rho: self._unlimited(x0, kernel, y, rho),
            lambda x: self.mean_square(x, kernel, y),
            y,
            variance,
        )
        self.warm_start = None

    def m_step(self, x: Tensor, y: Tensor, kernel: Tensor, variance: Tensor) -> Tensor:
        """Kernel (B, 1, K, K) that explains y given posterior samples (Eq. 11 by HQS, Eq. 17-19).

        Args:
            x: (B, S, C, H, W) posterior samples in [-1, 1].
            y: (B, C, H, W) measurement.
            kernel: (B, 1, K, K) kernel to start from.
            variance: (B,) variance of y - k * x, from noise and modelling error.
        """
        if self.fixed:
            return kernel
        hqs = self.hqs
        samples, interior = self.light(x.clamp(-1, 1)), self._interior
        if hqs.gradients:
            samples, y = differences(samples), differences(y)
            if interior is not None:
                interior = interior * interior.roll(-1, -1) * interior.roll(-1, -2)
        delta = hqs.delta * (1.0 if hqs.pixels is None else y[0, 0].numel() / hqs.pixels)
        update: Callable[[Tensor], Tensor]
        if interior is None and hqs.per_channel:
            update = _per_channel_update(samples, y, delta * variance, self.kernel_size)
        elif interior is None:
            factors = ext.hqs_prepare(samples, y, delta * variance, self.kernel_size)
            updated = self._in_one_launch(kernel, factors, delta)
            if updated is not None:
                return centre_kernel(updated) if hqs.centre else updated
            update = partial(ext.hqs_kernel_update, factors=factors)
        else:
            update = MaskedKernelUpdate(samples, y, interior, delta * variance)
        for _ in range(hqs.iterations):
            kernel = update(kernel)
            if self.denoiser is not None:
                kernel = ext.project_kernel(self.denoiser(kernel, self._level(kernel, delta)))
        return centre_kernel(kernel) if hqs.centre else kernel

    def _in_one_launch(self, kernel: Tensor, factors: ext.HQSFactors, delta: float) -> Tensor | None:
        """All iterations with the kernel denoiser where they are one launch on a GPU, else None."""
        network, absolute = network_of(self.denoiser), self.hqs.noise_level is None
        if network is None or self.hqs.iterations < 1:
            return None
        layers = network.layers()
        if not ext.hqs_m_step_is_one_launch(kernel, factors, *layers):
            return None
        level = kernel.new_full((kernel.shape[0],), delta**-0.5) if absolute else self._level(kernel, delta)
        return ext.hqs_m_step(
            kernel, factors, *layers, level, relative=not absolute, iterations=self.hqs.iterations
        )

    def _level(self, kernel: Tensor, delta: float) -> Tensor:
        level = self.hqs.noise_level
        if level is None:
            return delta**-0.5 / kernel.amax((1, 2, 3))
        if isinstance(level, Tensor):
            return level.to(kernel).expand(kernel.shape[0])
        return kernel.new_full((kernel.shape[0],), level)


def differences(image: Tensor) -> Tensor:
    """Differences to the next pixel across and down, as channels: (..., C, H, W) -> (..., 2 C, H, W), circular.

    They whiten a photograph: its least squares for a kernel no longer weigh the few low frequencies most, where
    the error of a blur model is greatest (Cho and Lee 2009).
    """
    return torch.cat([image - image.roll(-1, -1), image - image.roll(-1, -2)], -3)


def _per_channel_update(
    samples: Tensor, y: Tensor, weight: Tensor, kernel_size: int
) -> Callable[[Tensor], Tensor]:
    """An HQS update (B, 1, K, K) -> (B, 1, K, K), the mean of the updates of single colour channels."""
    channels = y.shape[1]
    single = samples.movedim(2, 1).flatten(0, 1).unsqueeze(2)
    weights = weight.repeat_interleave(channels)
    factors = ext.hqs_prepare(single.contiguous(), y.flatten(0, 1).unsqueeze(1), weights, kernel_size)

    def update(kernel: Tensor) -> Tensor:
        updated = ext.hqs_kernel_update(kernel.repeat_interleave(channels, 0), factors)
        return updated.unflatten(0, (-1, channels)).mean(1)

    return update


def shifted(kernel: Tensor, rows: int, columns: int) -> Tensor:
    """`kernel` (..., K, K) moved down by `rows` and right by `columns`; parts that leave the frame are lost."""
    size = kernel.shape[-1]
    padded = F.pad(kernel, (max(columns, 0), max(-columns, 0), max(rows, 0), max(-rows, 0)))
    top, left = max(-rows, 0), max(-columns, 0)
    return padded[..., top : top + size, left : left + size]


def pad_kernel(kernel: Tensor, size: int) -> Tensor:
    """Kernels (..., K, K) in a frame of `size`, at least K, with the origin at `size` // 2."""
    before = size // 2 - kernel.shape[-1] // 2
    after = size - kernel.shape[-1] - before
    return F.pad(kernel, (before, after, before, after))


def crop_kernel(kernel: Tensor, size: int) -> Tensor:
    """The `size` x `size` part of kernels (B, 1, K, K) around their origin, not normalised."""
    first = kernel.shape[-1] // 2 - size // 2
    return kernel[..., first : first + size, first : first + size]


def support_size(kernel: Tensor) -> int:
    """The least odd size of a frame around the origin that holds kernels (B, 1, K, K), and 2 pixels more.

    Values below 2 % of a kernel's peak do not count. The result is at least 9 and at most the odd size below K.
    """
    size = kernel.shape[-1]
    rows, columns = (kernel > 0.02 * kernel.amax((-2, -1), keepdim=True)).flatten(0, 1).any(0).nonzero().T
    reach = max(int((index - size // 2).abs().max()) for index in (rows, columns))
    return min(max(2 * reach + 5, 9), size - 1 + size % 2)


def resize_kernel(kernel: Tensor, size: int, factor: float) -> Tensor:
    """Kernels (B, 1, K, K) enlarged by `factor` about their origin, cut or padded to `size`, sum 1."""
    old = kernel.shape[-1]
    offsets = torch.arange(size, dtype=kernel.dtype, device=kernel.device) - size // 2
    # grid_sample's coordinates run over [-1, 1] with the centre of pixel i at (2 i + 1) / n - 1.
    coordinates = (2 * (offsets / factor + old // 2) + 1) / old - 1
    rows, columns = torch.meshgrid(coordinates, coordinates, indexing="ij")
    grid = torch.stack([columns, rows], -1).expand(kernel.shape[0], -1, -1, -1)
    enlarged = F.grid_sample(kernel, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return ext.project_kernel(enlarged)
