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

from ..solver.frame import wrapped

TINY = 1e-12  # keeps divisions finite for a constant image
_FAINT = 0.05  # kernel values below this share of the peak are set to zero
_SMALL_PART = 0.1  # connected parts with less than this share of the mass are removed
_TOLERANCE = 3e-4  # of the gradient of a non-negative kernel, in units of the right-hand side
_ITERATIONS = 80  # most iterations for one
_UNCONSTRAINED_ITERATIONS = 20


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
        y: (B, C, h, w) in [0, 1]; extended smoothly until it wraps around, unless it is circular.
        mask: (B, 1, h, w), 1 where y was measured.
        kernel_size: width of the kernel at this scale.
        frames: N widths, in kernel sizes, of the border whose gradients are left out; the N / B hypotheses of
            an image stand next to each other.
        circular: whether the blur wraps around; there is no border then.

    Attributes:
        size: (H, W) of the extended image.
        inside: (N, 1, H, W), 1 for the gradients that count.
        spectrum: (N, C, H, W // 2 + 1), Fourier transform of the extended image.
        gradient_power: (H, W // 2 + 1), |D|^2: the squared transfer functions of both gradients, added.
    """

    def __init__(self, y: Tensor, mask: Tensor, kernel_size: int, frames: list[float], circular: bool) -> None:
        repeats = len(frames) // len(y)
        y = y if circular else extended(y, kernel_size)
        self.y, self.spectrum, self.inside = (
            one.repeat_interleave(repeats, 0) for one in (y, torch.fft.rfft2(y), mask)
        )
        self.size = (y.shape[-2], y.shape[-1])
        if not circular:
            self.inside = _inside(self.inside, self.size, [round(frame * kernel_size) for frame in frames])
        self.gradient_power = _gradient_power(self.size, y)

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
            whitening: (N or 1, 1, 1, 1), w in the weight 1 / (1 + w |D|^2) of each frequency.
            kernel_size: K.

        Returns:
            Autocorrelation (N, 1, 2 K - 1, 2 K - 1) of the gradients of x and their correlation (N, 1, K, K)
            with those of y, the lag zero in the middle.
        """
        whitening = whitening.flatten().expand(len(x))
        return ext.gradient_lags(x, self.spectrum, selected, whitening, kernel_size)


def _gradient_power(size: tuple[int, int], like: Tensor) -> Tensor:
    """|D|^2 = |D_x|^2 + |D_y|^2 on the half spectrum of an image of `size`."""
    rows = torch.fft.fftfreq(size[0], device=like.device, dtype=like.dtype)[:, None]
    columns = torch.fft.rfftfreq(size[1], device=like.device, dtype=like.dtype)[None]
    return 4 * torch.sin(math.pi * rows) ** 2 + 4 * torch.sin(math.pi * columns) ** 2


def extended(y: Tensor, margin: int) -> Tensor:
    """Adds at least `margin` rows and columns after the end of y that lead smoothly back to its beginning.

    See `frame.wrapped`.
    """
    rows, columns = (fast_length(side + margin) for side in y.shape[-2:])
    return wrapped(y, (rows, columns))


def _inside(mask: Tensor, size: tuple[int, int], frames: list[int]) -> Tensor:
    """`mask` (N, 1, h, w) on the extended image, 0 there and within frames[n] pixels of the border."""
    height, width = mask.shape[-2:]
    inside = mask.new_zeros((len(frames), 1, *size))
    for n, frame in enumerate(frames):
        # A gradient reaches one pixel further, hence the -1.
        rows, columns = slice(frame, height - 1 - frame), slice(frame, width - 1 - frame)
        inside[n, :, rows, columns] = mask[n, :, rows, columns]
    return inside


def positive_kernel(auto: Tensor, cross: Tensor, ridge: Tensor, start: Tensor) -> Tensor:
    """Non-negative least squares for a kernel.

    Args:
        auto, cross: as `Scale.kernel_equations` returns them.
        ridge: (N or 1, 1, 1, 1), weight of ||k||^2 in units of the energy of the gradients.
        start: (N, 1, K, K).

    Returns:
        (N, 1, K, K).
    """
    weight = _ridge_weight(auto, ridge)
    return ext.kernel_from_lags(auto, cross, weight, start, tolerance=_TOLERANCE, iterations=_ITERATIONS)


def unconstrained_kernel(auto: Tensor, cross: Tensor, ridge: Tensor) -> Tensor:
    """Least squares (N, 1, K, K) for a kernel whose values may be negative; arguments as `positive_kernel`.

    Fine detail converges in few iterations, before noise does.
    """
    weight, start = _ridge_weight(auto, ridge), torch.zeros_like(cross)
    return ext.kernel_from_lags(
        auto, cross, weight, start, nonnegative=False, tolerance=0.0, iterations=_UNCONSTRAINED_ITERATIONS
    )


def _ridge_weight(auto: Tensor, ridge: Tensor) -> Tensor:
    middle = auto.shape[-1] // 2
    return ridge.flatten() * auto[:, 0, middle, middle]


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
    values = kernel[:, 0].cpu().numpy()
    # One below the other, with an empty row between them: labelling each alone would take longer.
    apart = np.pad(values > 0, ((0, 0), (0, 1), (0, 0)))
    parts = label(apart.reshape(-1, size), connectivity=2).reshape(apart.shape)[:, :size]
    masses = np.bincount(parts.ravel(), values.ravel())
    totals = values.sum((1, 2))[:, None]
    values = np.where(masses[parts] < _SMALL_PART * totals[..., None], 0, values)
    totals = np.maximum(values.sum((1, 2))[:, None], TINY)
    offsets = np.arange(size) - size // 2
    centres = ((values.sum(axis) * offsets).sum(1, keepdims=True) / totals for axis in (2, 1))
    rows, columns = ((np.arange(size) + np.rint(centre).astype(int)) % size for centre in centres)
    values = values[np.arange(len(values))[:, None, None], rows[..., None], columns[:, None]]
    values = values / totals[..., None]
    result = torch.from_numpy(values)[:, None].to(kernel)
    return torch.where(result.sum((-2, -1), keepdim=True) > 0, result, fallback)
