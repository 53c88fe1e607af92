from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.metrics import kernel_metrics
from latentdem.operators.kernel_langevin import KernelEnergy
from latentdem.operators.kernels import gaussian_kernel, motion_kernels

Problem = Callable[..., tuple[Tensor, Tensor, Tensor]]
VARIANCE = torch.tensor([0.3, 0.7], dtype=torch.float64)


# Odd and even sizes, and one for which 2 K - 1 lags are more than the image has pixels.
@pytest.mark.parametrize("size", [4, 5, 9])
def test_gradient_is_that_of_the_energy(problem: Problem, size: int) -> None:
    x, _, y = problem(2, 3, (12, 14, size))
    kernel = torch.randn(2, 1, size, size, dtype=torch.float64).requires_grad_()
    likelihood = (y - ext.blur(x, kernel)).square().sum((1, 2, 3)) / (2 * VARIANCE)
    energy = likelihood + 0.4 * kernel.abs().sum((1, 2, 3))
    (expected,) = torch.autograd.grad(energy.sum(), kernel)
    gradient = KernelEnergy(x, y, VARIANCE, size, 0.4).gradient(kernel.detach())
    torch.testing.assert_close(gradient, expected)


def test_curvature_bounds_the_eigenvalues(problem: Problem) -> None:
    size = 5
    x, _, y = problem(2, 3, (12, 14, size))
    energy = KernelEnergy(x, y, VARIANCE, size, 0.0)
    origin = energy.gradient(torch.zeros(2, 1, size, size, dtype=torch.float64))
    columns = []
    for unit in torch.eye(size * size, dtype=torch.float64).view(-1, 1, size, size):
        columns.append((energy.gradient(unit.expand(2, -1, -1, -1)) - origin).flatten(1))
    greatest = torch.linalg.eigvalsh(torch.stack(columns, 1)).amax(1)
    assert (greatest <= energy.curvature).all()
    assert (energy.curvature < 3 * greatest).all()


def test_one_step_is_the_formula(problem: Problem) -> None:
    x, kernel, y = problem(2, 3, (12, 14, 5))
    energy = KernelEnergy(x, y, VARIANCE, 5, 0.4)
    sampled = energy.sample(kernel, 1, 0.5, torch.Generator().manual_seed(3))
    noise = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    xi = (1 / energy.curvature).view(-1, 1, 1, 1)
    expected = kernel - xi / 2 * energy.gradient(kernel) + xi.sqrt() * noise
    torch.testing.assert_close(sampled, ext.project_kernel(expected))


def test_steps_without_a_prior_sample_a_gaussian(problem: Problem) -> None:
    """With many steps the mean and the variances are those of the least-squares solution, before projection."""
    size, steps = 3, 4000
    x, _, y = problem(1, 3, (12, 14, size))
    energy = KernelEnergy(x, y, VARIANCE[:1], size, 0.0)
    origin = energy.gradient(torch.zeros(1, 1, size, size, dtype=torch.float64)).flatten()
    units = torch.eye(size * size, dtype=torch.float64).view(-1, 1, 1, size, size)
    precision = torch.stack([energy.gradient(unit).flatten() - origin for unit in units])
    mean = -torch.linalg.solve(precision, origin)
    generator, kernel, seen = torch.Generator().manual_seed(0), torch.zeros(1, 1, size, size).double(), []
    xi = 0.1 / energy.curvature
    for _ in range(steps):
        noise = torch.randn(kernel.shape, generator=generator, dtype=torch.float64)
        kernel = kernel - xi / 2 * energy.gradient(kernel) + xi.sqrt() * noise
        seen.append(kernel.flatten())
    deviation = torch.stack(seen[500:]) - mean
    spread = precision.inverse().diagonal().sqrt()
    assert (deviation.mean(0).abs() < 0.5 * spread).all()
    assert ((deviation.std(0) / spread - 1).abs() < 0.3).all()


def test_kernel_of_a_known_image_is_found(scene: Callable[..., Tensor]) -> None:
    x, kernel = scene(32, 32), motion_kernels(1, 9, 0.5, 0)
    y = ext.blur(x, kernel)
    energy = KernelEnergy(x, y, torch.tensor([0.02**2]), 9, 0.0)
    sampled = energy.sample(gaussian_kernel(9, 2.0), 2000, 1.0, torch.Generator().manual_seed(0))
    assert kernel_metrics(sampled, kernel).mnc > 0.98
    assert sampled.min() >= 0
    assert float(sampled.sum()) == pytest.approx(1)
