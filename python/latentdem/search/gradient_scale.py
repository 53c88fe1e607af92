"""One scale of the gradient-based start: the image and kernel steps that alternate, and the kernel's clean-up.

All images are batches (N, C, h, w) and all kernels (N, 1, K, K) with K odd and the origin at K // 2.
`gradient_start` holds the search that uses them and names the papers behind it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from skimage.measure import label
from torch import Tensor
from torch.nn import functional as F

import latentdem_ext as ext
from latentdem_ext.reference import fast_length

TINY = 1e-12  # keeps divisions finite for a constant image
_FAINT = 0.05  # kernel values below this share of the peak are set to zero
_SMALL_PART = 0.1  # connected parts with less than this share of the mass are removed


def resize(image: Tensor, size: tuple[int, int] | list[int]) -> Tensor:
    """Resizes by bicubic interpolation, with antialiasing where the image shrinks."""
    return F.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False)


def gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the next pixel on the right and to the next one below; both wrap around."""
    across, down = torch.empty_like(image), torch.empty_like(image)
    torch.sub(image[..., :-1], image[..., 1:], out=across[..., :-1])
    torch.sub(image[..., -1], image[..., 0], out=across[..., -1])
    torch.sub(image[..., :-1, :], image[..., 1:, :], out=down[..., :-1, :])
    torch.sub(image[..., -1, :], image[..., 0, :], out=down[..., -1, :])
    return across, down


def divergence(across: Tensor, down: Tensor) -> Tensor:
    """The adjoint of `gradients`."""
    result = across + down
    result[..., 1:] -= across[..., :-1]
    result[..., 0] -= across[..., -1]
    result[..., 1:, :] -= down[..., :-1, :]
    result[..., 0, :] -= down[..., -1, :]
    return result


def squared_gradient(image: Tensor) -> Tensor:
    """Squared length of the gradient, (N, C, h, w)."""
    across, down = gradients(image)
    return across.square_().addcmul_(down, down)


def box_mean(image: Tensor, radius: int) -> Tensor:
    """Mean over the square of 2 radius + 1 pixels around each pixel, zeros being beyond the border."""
    width = 2 * radius + 1
    across = F.avg_pool2d(image, (1, width), 1, (0, radius))
    return F.avg_pool2d(across, (width, 1), 1, (radius, 0))


class Scale:
    """A blurred image at one scale, and what the image and kernel steps share.

    Args:
        y: (N, C, h, w) in [0, 1]; extended smoothly until it wraps around, unless it is circular.
        mask: (N, 1, h, w), 1 where y was measured.
        kernel_size: width of the kernel at this scale.
        frames: N widths, in kernel sizes, of the border whose gradients are left out.
        circular: whether the blur wraps around; there is no border then.

    Attributes:
        size: (H, W) of the extended image.
        inside: (N, 1, H, W), 1 for the gradients that count.
        spectrum: (N, C, H, W // 2 + 1), Fourier transform of the extended image.
        gradient_power: (H, W // 2 + 1), |D|^2: the squared transfer functions of both gradients, added.
    """

    def __init__(self, y: Tensor, mask: Tensor, kernel_size: int, frames: list[float], circular: bool) -> None:
        self.y = y if circular else extended(y, kernel_size)
        self.size = (self.y.shape[-2], self.y.shape[-1])
        if circular:
            self.inside = mask
        else:
            self.inside = _inside(mask, self.size, [round(frame * kernel_size) for frame in frames])
        self.spectrum = torch.fft.rfft2(self.y)
        self.gradient_power = _gradient_power(self.size, y)
        self._gradient_spectra = [torch.fft.rfft2(gradient) for gradient in gradients(self.y)]

    def l0_image(
        self, kernel: Tensor, penalty: Tensor, first_weight: Tensor, growth: Tensor, last_weight: Tensor
    ) -> Tensor:
        """argmin_x ||y - k * x||^2 + penalty ||D x||_0 by half-quadratic splitting (Xu et al., 2011 and 2013).

        Args:
            kernel: (N, 1, K, K).
            penalty: (N, 1, 1, 1).
            first_weight: (N, 1, 1, 1), the splitting's first weight, in units of `penalty`.
            growth: (N, 1, 1, 1), the factor between successive weights.
            last_weight: (N, 1, 1, 1), where they end.

        Returns:
            (N, C, H, W).
        """
        weights = (value.flatten() for value in (penalty, first_weight * penalty, growth, last_weight))
        return ext.l0_deconvolution(self.y, kernel, *weights)

    def hyper_laplacian_image(self, kernel: Tensor, penalty: float, exponent: float = 0.8) -> Tensor:
        """argmin_x ||y - k * x||^2 / 2 + penalty sum |D x|^exponent by splitting (Krishnan and Fergus, 2009).

        The gradients are shrunk in one closed-form step instead of the exact proximal map.
        """
        otf = ext.kernel_to_otf(kernel, self.size)
        data, power = otf.conj() * self.spectrum, otf.abs() ** 2
        x = self.y
        for weight in (x.new_full((1, 1, 1, 1), 4 * penalty * 4**i) for i in range(5)):
            across, down = gradients(x)
            length = across.square().addcmul_(down, down).sum(1, keepdim=True).sqrt() + 1e-9
            shrinkage = (1 - penalty / weight * exponent * length ** (exponent - 2)).clamp_min(0)
            x = self._image(data, power, weight, across * shrinkage, down * shrinkage)
        return x

    def _image(self, data: Tensor, power: Tensor, weight: Tensor, across: Tensor, down: Tensor) -> Tensor:
        """The image closest to the data and, with `weight`, to the gradients `across` and `down`."""
        # Real views: PyTorch would convert real factors of complex numbers.
        spectrum = torch.fft.rfft2(divergence(across, down))
        torch.view_as_real(spectrum).mul_(weight[..., None])
        denominator = power + weight * self.gradient_power
        torch.view_as_real(spectrum.add_(data)).div_(denominator[..., None])
        return torch.fft.irfft2(spectrum, s=self.size)

    def kernel_equations(
        self, x: Tensor, selected: Tensor, whitening: Tensor, kernel_size: int
    ) -> tuple[Tensor, Tensor]:
        """Normal equations of the kernel that maps the gradients of x to those of y, both whitened.

        Args:
            x: (N, C, H, W).
            selected: (N, 1, H, W), 1 for the gradients of x that are used.
            whitening: (N, 1, 1, 1), w in the weight 1 / (1 + w |D|^2) of each frequency.
            kernel_size: K.

        Returns:
            Autocorrelation (N, 1, 2 K - 1, 2 K - 1) of the gradients of x and their correlation (N, 1, K, K)
            with those of y, the lag zero in the middle.
        """
        auto = cross = torch.zeros(())
        for gradient, measured in zip(gradients(x), self._gradient_spectra, strict=True):
            spectrum = torch.fft.rfft2(gradient * selected)
            auto = auto + (spectrum.abs() ** 2).sum(1, keepdim=True)
            cross = cross + (spectrum.conj() * measured).sum(1, keepdim=True)
        weight = 1 / (1 + whitening * self.gradient_power)
        return self._lags(auto * weight, 2 * kernel_size - 1), self._lags(cross * weight, kernel_size)

    def _lags(self, spectrum: Tensor, count: int) -> Tensor:
        lags = torch.fft.irfft2(spectrum, s=self.size)
        index = torch.arange(count, device=lags.device) - count // 2
        # Modulo: a circular image may have fewer pixels than there are lags.
        return lags[..., (index % self.size[0])[:, None], index % self.size[1]]


def _gradient_power(size: tuple[int, int], like: Tensor) -> Tensor:
    """|D|^2 = |D_x|^2 + |D_y|^2 on the half spectrum of an image of `size`."""
    rows = torch.fft.fftfreq(size[0], device=like.device, dtype=like.dtype)[:, None]
    columns = torch.fft.rfftfreq(size[1], device=like.device, dtype=like.dtype)[None]
    return 4 * torch.sin(math.pi * rows) ** 2 + 4 * torch.sin(math.pi * columns) ** 2


def extended(y: Tensor, margin: int) -> Tensor:
    """Adds at least `margin` rows and columns after the end of y that lead smoothly back to its beginning.

    Both ends are mirrored outwards and cross-faded (the aim of Liu and Jia, ICIP 2008, without their solver).
    """
    for _ in range(2):  # columns, then rows
        length = y.shape[-1]
        added = fast_length(length + margin) - length
        fade = torch.arange(1, added + 1, dtype=y.dtype, device=y.device) / (added + 1)
        fade = fade * fade * (3 - 2 * fade)
        index = torch.arange(added, device=y.device)
        mirrored_end = y[..., length - 1 - index % length]
        mirrored_start = y[..., (added - 1 - index) % length]
        y = torch.cat([y, mirrored_end * (1 - fade) + mirrored_start * fade], -1).transpose(-1, -2)
    return y


def _inside(mask: Tensor, size: tuple[int, int], frames: list[int]) -> Tensor:
    """`mask` (N, 1, h, w) on the extended image, 0 there and within frames[n] pixels of the border."""
    height, width = mask.shape[-2:]
    inside = mask.new_zeros((len(frames), 1, *size))
    for n, frame in enumerate(frames):
        # A gradient reaches one pixel further, hence the -1.
        rows, columns = slice(frame, height - 1 - frame), slice(frame, width - 1 - frame)
        inside[n, :, rows, columns] = mask[n, :, rows, columns]
    return inside


class KernelSystem:
    """The matrix of the kernel's normal equations with a ridge, applied by Fourier transforms.

    A grid of n >= 2 K pixels a side is large enough for the product to be exact on the K x K support.
    """

    def __init__(self, auto: Tensor, ridge: Tensor, kernel_size: int) -> None:
        k = kernel_size
        self._grid = (fast_length(2 * k),) * 2
        end = self._grid[0] - 2 * k + 1
        padded = F.pad(auto, (0, end, 0, end)).roll((1 - k, 1 - k), (-2, -1))
        self._spectrum = torch.fft.rfft2(padded).real  # an autocorrelation is even, so its spectrum is real
        self._ridge = ridge * auto[..., k - 1 : k, k - 1 : k]

    def __call__(self, kernel: Tensor) -> Tensor:
        k = kernel.shape[-1]
        product = torch.fft.irfft2(self._spectrum * torch.fft.rfft2(kernel, s=self._grid), s=self._grid)
        return product[..., :k, :k] + self._ridge * kernel

    def step(self) -> Tensor:
        """A safe step length of gradient descent: one over a bound of the largest eigenvalue."""
        return 1 / (self._spectrum.amax((-2, -1), keepdim=True) + self._ridge + TINY)


def positive_kernel(auto: Tensor, cross: Tensor, ridge: Tensor, start: Tensor, iterations: int = 40) -> Tensor:
    """Non-negative solution (N, 1, K, K) of the normal equations by FISTA (Beck and Teboulle, 2009).

    Args:
        auto, cross: as `Scale.kernel_equations` returns them.
        ridge: (N, 1, 1, 1), weight of ||k||^2 in units of the energy of the gradients.
        start: (N, 1, K, K).
        iterations: steps of FISTA.
    """
    system = KernelSystem(auto, ridge, start.shape[-1])
    step = system.step()
    kernel = extrapolated = start
    momentum = 1.0
    for _ in range(iterations):
        update = (extrapolated - step * (system(extrapolated) - cross)).clamp_min(0)
        next_momentum = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        extrapolated = update + (momentum - 1) / next_momentum * (update - kernel)
        kernel, momentum = update, next_momentum
    return kernel


def unconstrained_kernel(auto: Tensor, cross: Tensor, ridge: Tensor, iterations: int = 20) -> Tensor:
    """Solution (N, 1, K, K) of the normal equations by conjugate gradients; arguments as `positive_kernel`.

    Values may be negative, but fine detail converges in far fewer iterations.
    """
    system = KernelSystem(auto, ridge, cross.shape[-1])
    kernel, residual, direction = torch.zeros_like(cross), cross, cross
    square = _dot(residual, residual)
    for _ in range(iterations):
        product = system(direction)
        length = square / (_dot(direction, product) + TINY)
        kernel = kernel + length * direction
        residual = residual - length * product
        last_square, square = square, _dot(residual, residual)
        direction = residual + square / (last_square + TINY) * direction
    return kernel


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)


def cleaned(kernel: Tensor, fallback: Tensor) -> Tensor:
    """Removes faint values and small parts, normalises to sum 1 and centres the mass at K // 2.

    Centring wraps around, unlike `operators.blur.centre_kernel`, so that no part of the kernel is lost.

    Args:
        kernel: (N, 1, K, K).
        fallback: (N, 1, K, K), taken where nothing remains.
    """
    size = kernel.shape[-1]
    kernel = torch.where(kernel.isfinite().all(-1).all(-1)[..., None, None], kernel, 0)
    kernel = torch.where(kernel < kernel.amax((-2, -1), keepdim=True) * _FAINT, 0, kernel)
    results = []
    for values in kernel[:, 0].cpu().numpy():
        parts = label(values > 0, connectivity=2)
        masses = np.bincount(parts.ravel(), values.ravel())
        values = np.where(masses[parts] < _SMALL_PART * values.sum(), 0, values)
        total = values.sum()
        if total > 0:
            offsets = np.arange(size) - size // 2
            moves = [-round(float((values.sum(axis) * offsets).sum() / total)) for axis in (1, 0)]
            values = np.roll(values, moves, (0, 1)) / total
        results.append(values)
    result = torch.from_numpy(np.stack(results))[:, None].to(kernel)
    return torch.where(result.sum((-2, -1), keepdim=True) > 0, result, fallback)
