"""Families of blur kernels with few parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

_POINTS = {1: 33, 2: 9}  # points of a grid along each parameter, for families of 1 and 2 parameters
_ZOOMS = 4  # grids, each spanning the neighbours of the best point of the one before


class KernelFamily(ABC):
    """Kernels (B, 1, K, K) given by a few positive parameters (B, P).

    Their centre is the middle of the array, (K - 1) / 2: for odd K the origin K // 2.

    Attributes:
        names: names of the parameters.
        least: smallest value of every parameter, in pixels.
    """

    names: tuple[str, ...]
    least: float

    @abstractmethod
    def most(self, size: int) -> float:
        """Largest value of a parameter for which a K x K kernel has room."""

    @abstractmethod
    def kernels(self, parameters: Tensor, size: int) -> Tensor:
        """Kernels (..., K, K) of `parameters` (..., P), non-negative, sum 1, differentiable in them."""

    def kernel(self, parameters: Tensor, size: int) -> Tensor:
        """Kernels (B, 1, K, K) of `parameters` (B, P)."""
        return self.kernels(parameters, size)[:, None]

    def fit(self, kernel: Tensor) -> Tensor:
        """Parameters (B, P) of the members nearest to the directions of `kernel` (B, 1, K, K).

        The nearest member has the greatest normalised correlation. The search runs over logarithmic grids, each
        finer than the one before.
        """
        size, count = kernel.shape[-1], len(self.names)
        centre = kernel.new_tensor([self.least, self.most(size)]).log().mean().expand(len(kernel), count)
        half = (kernel.new_tensor(self.most(size) / self.least)).log() / 2
        line = torch.linspace(-1, 1, _POINTS[count], device=kernel.device, dtype=kernel.dtype)
        grid = torch.cartesian_prod(*[line] * count).view(-1, count)
        for _ in range(_ZOOMS):
            points = centre[:, None] + half * grid
            members = self.kernels(points.exp(), size).flatten(2)
            score = torch.einsum("bnk,bk->bn", members, kernel.flatten(1)) / members.norm(dim=-1)
            centre = points[torch.arange(len(kernel)), score.argmax(1)]
            half = half * (line[1] - line[0])
        return centre.exp().clamp(self.least, self.most(size))


class GaussianKernels(KernelFamily):
    """Separable Gaussians with standard deviations sigma_x (along rows) and sigma_y, in pixels."""

    names: tuple[str, ...] = ("sigma_x", "sigma_y")
    least = 0.25

    def most(self, size: int) -> float:
        return size / 4

    def kernels(self, parameters: Tensor, size: int) -> Tensor:
        columns, rows = (_line(parameters[..., i], size) for i in (0, -1))
        return rows[..., :, None] * columns[..., None, :]


class RoundGaussianKernels(GaussianKernels):
    """Isotropic Gaussians with one standard deviation sigma, in pixels."""

    names = ("sigma",)


class AntiAliasing(RoundGaussianKernels):
    """Isotropic Gaussians used before sampling every f-th pixel: sigma from 0.35 f to 0.75 f.

    The few pixels left hardly tell them apart; below this range images alias visibly, above it they blur.
    """

    def __init__(self, factor: int) -> None:
        self.least, self._most = 0.35 * factor, 0.75 * factor

    def most(self, size: int) -> float:
        return self._most


class DiskKernels(KernelFamily):
    """Uniform disks of a radius in pixels, the blur of a lens out of focus; their edge is one pixel soft."""

    names = ("radius",)
    least = 0.5

    def most(self, size: int) -> float:
        return (size - 1) / 2

    def kernels(self, parameters: Tensor, size: int) -> Tensor:
        offset = _offsets(parameters, size)
        distance = (offset[:, None].square() + offset.square()).sqrt()
        disk = (parameters[..., None] + 0.5 - distance).clamp(0, 1)
        return disk / disk.sum((-2, -1), keepdim=True)


def _offsets(like: Tensor, size: int) -> Tensor:
    return torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2


def _line(sigma: Tensor, size: int) -> Tensor:
    """Sampled Gaussians (..., K) of standard deviation `sigma` (...), sum 1."""
    return torch.softmax(-0.5 * (_offsets(sigma, size) / sigma[..., None]).square(), -1)
