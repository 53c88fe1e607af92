"""Small problems of masked least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdem.operators.kernels import motion_kernels

SHAPE = (20, 24)  # even, as the compiled module has it


def frame(*holes: tuple[int, int]) -> Tensor:
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.float64)
    mask[..., 3:-4, 4:-2] = 1
    for row, column in holes:
        mask[..., row, column] = 0
    return mask


def gaussian(size: int, sigma: float) -> Tensor:
    line = torch.exp(-((torch.arange(size, dtype=torch.float64) - size // 2) ** 2) / (2 * sigma**2))
    return (line[:, None] * line / line.sum() ** 2)[None, None]


def box(size: int) -> Tensor:
    """Its transfer function has lines of zeros on lattices that its size divides, and nearly so on others."""
    return torch.full((1, 1, size, size), 1 / size**2, dtype=torch.float64)


MASKS = {
    "frame": frame(),
    "frame and holes": frame((7, 9), (7, 10), (12, 5)),
    "holes alone": (torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(2)) > 0.2).double(),
    "everything": torch.ones(1, 1, *SHAPE, dtype=torch.float64),
    "nothing": torch.zeros(1, 1, *SHAPE, dtype=torch.float64),
}
KERNELS = {
    "motion": motion_kernels(1, 7, 0.5, 3).double(),
    "gaussian": gaussian(7, 1.5),
    "box, nearly singular": box(5),
}


def images(seed: int = 0, shape: tuple[int, int] = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, 1, 3, *shape, generator=generator, dtype=torch.float64) * 2 - 1)  # type: ignore[return-value]


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x0, kernel, y, mask and rho of three samples with masks of their own."""
    x0, y = (torch.cat(parts) for parts in zip(*map(images, range(3)), strict=True))
    kernel = torch.cat([KERNELS["motion"], gaussian(7, 1.5), gaussian(7, 0.7)])
    mask = torch.cat([MASKS[name] for name in ("frame", "frame and holes", "holes alone")])
    return x0, kernel, y, mask, torch.tensor([1.0, 1e-3, 1e-2], dtype=torch.float64)


def kernel_problem(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, mask, weight and right-hand side of two samples, the masks with weights between 0 and 1."""
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(2, 3, *SHAPE, generator=generator, dtype=torch.float64) * 2 - 1
    mask = MASKS["frame and holes"] * torch.rand(2, 1, *SHAPE, generator=generator, dtype=torch.float64)
    right = torch.randn(2, 1, size, size, generator=generator, dtype=torch.float64)
    return x, mask, torch.tensor([0.7, 20.0], dtype=torch.float64), right
