"""Kernels at all places of a photograph from one density over the poses of a camera that turns and moves.

A camera that is shaken during the exposure sees a plane, or anything far away, as y = sum_p w_p H_p x: the mean
of the sharp picture seen from the poses p, with the share w_p of the exposure that each of them had (Whyte,
Sivic, Zisserman and Ponce, CVPR 2010 and IJCV 2012; Gupta, Joshi, Zitnick, Cohen and Curless, ECCV 2010). As in
the latter, a pose is a roll about the middle of the picture and a translation: with a lens that is not very
wide, pitch and yaw move the picture by nearly the same everywhere. Around the place c, in pixels from the
middle, the blur is then a convolution with

    k_c = sum_a B(R_a c - c) w_a,

where w_a is the density over translations at the roll a, R_a the rotation by it and B(s) the bilinear shift by
s (the local model of Hirsch, Schuler, Harmeling and Schoelkopf, ICCV 2011). All k_c are linear in w, so that
the normal equations of the kernels of many windows become one system for w.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latentdem_ext.reference import fast_length

from .gradient_scale import TINY

_FAINT = 0.02  # kernel values below this share of the peak are noise of the density
_POWER_STEPS = 8  # of the estimate of the largest eigenvalue
_SAFETY = 1.2  # factor of that estimate, which is too small before it converges


class CameraPoses:
    """The linear map from a density over poses to the kernels at some places, and its adjoint.

    Shifts are multiplications in the Fourier domain, on a grid where kernels that are shifted by up to K / 2 do
    not wrap around into the K x K frame; what leaves the frame is lost.

    Args:
        centres: (N, 2), places (down, right) in pixels from the middle of the picture.
        angles: (T,) rolls in radians, positive from the axis to the right towards the one that points down.
        kernel_size: K, odd.
    """

    def __init__(self, centres: Tensor, angles: Tensor, kernel_size: int) -> None:
        self.kernel_size, self._side = kernel_size, fast_length(2 * kernel_size)
        cosine, sine = angles.cos() - 1, angles.sin()
        down, right = centres[:, :1], centres[:, 1:]
        rows = torch.fft.fftfreq(self._side, device=centres.device)
        columns = torch.fft.rfftfreq(self._side, device=centres.device)
        vertical = _shift_filter(cosine * down + sine * right, rows)
        horizontal = _shift_filter(cosine * right - sine * down, columns)
        filters = vertical[..., None] * horizontal[..., None, :]
        self._filters = filters.flatten(2).permute(2, 0, 1).contiguous()  # (frequencies, N, T)

    def kernels(self, weights: Tensor) -> Tensor:
        """k_c (N, 1, K, K) of a density (T, K, K)."""
        return self._image(self._filters @ self._spectra(weights))[:, None]

    def adjoint(self, kernels: Tensor) -> Tensor:
        """The adjoint of `kernels`: (N, 1, K, K) to (T, K, K)."""
        return self._image(self._filters.mH @ self._spectra(kernels[:, 0]))

    def _spectra(self, planes: Tensor) -> Tensor:
        return torch.fft.rfft2(planes, s=(self._side,) * 2).flatten(1).T[..., None]

    def _image(self, spectra: Tensor) -> Tensor:
        planes = spectra[..., 0].T.unflatten(1, (self._side, -1))
        return torch.fft.irfft2(planes, s=(self._side,) * 2)[:, : self.kernel_size, : self.kernel_size]


def _shift_filter(shift: Tensor, frequencies: Tensor) -> Tensor:
    """Transfer functions (..., F) of shifts (...) by linear interpolation, which keeps kernels non-negative."""
    whole = shift.floor()
    part = (shift - whole)[..., None]
    phase = torch.exp(-2j * math.pi * whole[..., None] * frequencies)
    return phase * (1 - part + part * torch.exp(-2j * math.pi * frequencies))


class _KernelSystems:
    """The matrices of the normal equations of kernels with a ridge, applied by Fourier transforms.

    A grid of n >= 2 K pixels a side is large enough for the product to be exact on the K x K support.
    """

    def __init__(self, auto: Tensor, ridge: float, kernel_size: int) -> None:
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


def positive_density(
    poses: CameraPoses, auto: Tensor, cross: Tensor, ridge: float, start: Tensor, iterations: int
) -> Tensor:
    """min_w>=0 sum_c k_c^T (A_c + ridge A_c[0] I) k_c / 2 - b_c^T k_c by FISTA with restarts.

    The restarts are those of O'Donoghue and Candes (2015). The ridge is on the kernels: on the density it would
    spread it over the rolls.

    Args:
        poses: of N places.
        auto, cross: A_c and b_c of the places, as `Scale.kernel_equations` returns them.
        ridge: in units of the energy of the gradients.
        start: (T, K, K).
        iterations: steps of FISTA.
    """
    system = _KernelSystems(auto, ridge, poses.kernel_size)

    def apply(weights: Tensor) -> Tensor:
        return poses.adjoint(system(poses.kernels(weights)))

    target = poses.adjoint(cross)
    direction, eigenvalue = target, target.new_tensor(0.0)
    for _ in range(_POWER_STEPS):
        direction = direction / (direction.norm() + TINY)
        direction = apply(direction)
        eigenvalue = direction.norm()
    step = 1 / (_SAFETY * eigenvalue + TINY)
    weights = extrapolated = start
    momentum = 1.0
    for _ in range(iterations):
        update = (extrapolated - step * (apply(extrapolated) - target)).clamp_min(0)
        if float(((extrapolated - update) * (update - weights)).sum()) > 0:
            momentum = 1.0
        next_momentum = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        extrapolated = update + (momentum - 1) / next_momentum * (update - weights)
        weights, momentum = update, next_momentum
    return weights


@dataclass(frozen=True)
class KernelField:
    """The blur of a photograph by a camera that turned.

    Attributes:
        weights: (T, K, K), the density over poses, non-negative, sum 1; K is odd.
        angles: (T,) rolls in radians.
        size: (H, W) of the photograph.
    """

    weights: Tensor
    angles: Tensor
    size: tuple[int, int]

    @property
    def kernel_size(self) -> int:
        """K."""
        return self.weights.shape[-1]

    @property
    def roll(self) -> float:
        """Standard deviation of the roll during the exposure, in radians."""
        share = self.weights.sum((1, 2)) / self.weights.sum()
        mean = (share * self.angles).sum()
        return float((share * (self.angles - mean).square()).sum().sqrt())

    def kernels(self, centres: Tensor) -> Tensor:
        """Kernels (N, 1, K, K), non-negative, sum 1, at places (N, 2) in pixels from the middle."""
        return normalised(CameraPoses(centres, self.angles, self.kernel_size).kernels(self.weights))

    def in_window(self, rows: slice, columns: slice) -> Tensor:
        """The kernel (1, 1, K, K) in the middle of a window of the photograph."""
        middle = [(part.start + part.stop - n) / 2 for part, n in zip((rows, columns), self.size, strict=True)]
        return self.kernels(self.weights.new_tensor([middle]))

    def on_grid(self, count: int) -> Tensor:
        """Kernels (count^2, 1, K, K) on a grid from the first to the last pixel, row by row."""
        lines = (torch.linspace(-0.5, 0.5, count, device=self.weights.device) * (n - 1) for n in self.size)
        return self.kernels(torch.cartesian_prod(*lines))


def normalised(kernels: Tensor) -> Tensor:
    """Kernels (N, 1, K, K) without faint values, sum 1; a kernel without any light becomes no blur."""
    peak = kernels.amax((-2, -1), keepdim=True)
    kernels = torch.where(kernels < _FAINT * peak, 0, kernels)
    middle = kernels.shape[-1] // 2
    delta = torch.zeros_like(kernels)
    delta[..., middle, middle] = 1
    return torch.where(peak > TINY, kernels / kernels.sum((-2, -1), keepdim=True).clamp_min(TINY), delta)
