"""The kernels of a camera that turns and moves, against sums over its poses, and the density found by them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from latentdem.search.camera_poses import CameraPoses, KernelField, normalised, positive_density

K = 9
ANGLES = torch.linspace(-0.04, 0.04, 5)
CENTRES = torch.tensor([[0.0, 0.0], [-60.0, 20.0], [35.0, -50.0], [50.0, 40.0]])


@pytest.fixture
def density() -> Tensor:
    """(T, K, K) of a camera that goes down while it turns."""
    weights = torch.zeros(len(ANGLES), K, K)
    for turn, row in enumerate(range(2, 7)):
        weights[turn, row, 4] = 0.2
    return weights


def test_a_pose_moves_a_place_as_the_rotation_about_the_middle_does(density: Tensor) -> None:
    kernels = CameraPoses(CENTRES, ANGLES, K).kernels(density)
    offsets = torch.arange(K) - K // 2
    for (down, right), kernel in zip(CENTRES.tolist(), kernels[:, 0], strict=True):
        rows, columns = [], []
        for angle, row in zip(ANGLES.tolist(), range(2, 7), strict=True):
            rows.append(math.cos(angle) * down + math.sin(angle) * right - down + row - K // 2)
            columns.append(math.cos(angle) * right - math.sin(angle) * down - right)
        assert float((kernel.sum(1) * offsets).sum()) == pytest.approx(sum(rows) / 5, abs=1e-4)
        assert float((kernel.sum(0) * offsets).sum()) == pytest.approx(sum(columns) / 5, abs=1e-4)


def test_without_a_roll_every_place_has_the_density_as_its_kernel(density: Tensor) -> None:
    kernels = CameraPoses(CENTRES, torch.zeros(1), K).kernels(density.sum(0, keepdim=True))
    torch.testing.assert_close(kernels[:, 0], density.sum(0).expand(len(CENTRES), K, K), atol=1e-6, rtol=0)


def test_kernels_of_a_density_are_not_negative(density: Tensor) -> None:
    assert float(CameraPoses(CENTRES, ANGLES, K).kernels(density).min()) > -1e-6


def test_the_adjoint_is_the_adjoint(density: Tensor) -> None:
    poses = CameraPoses(CENTRES, ANGLES, K)
    weights = torch.rand(density.shape, generator=torch.Generator().manual_seed(0))
    kernels = torch.rand((len(CENTRES), 1, K, K), generator=torch.Generator().manual_seed(1))
    left = float((poses.kernels(weights) * kernels).sum())
    assert left == pytest.approx(float((weights * poses.adjoint(kernels)).sum()), rel=1e-4)


def test_the_normal_equations_of_all_places_give_the_kernels_back(density: Tensor) -> None:
    poses = CameraPoses(CENTRES, ANGLES, K)
    auto = torch.zeros(len(CENTRES), 1, 2 * K - 1, 2 * K - 1)
    auto[..., K - 1, K - 1] = 1  # gradients that are white
    truth = poses.kernels(density)
    found = positive_density(poses, auto, truth, 0.0, torch.zeros_like(density), 300)
    assert float(found.min()) >= 0
    torch.testing.assert_close(poses.kernels(found), truth, atol=5e-3, rtol=0)


def test_the_kernel_of_a_window_is_that_of_its_middle_and_the_grid_reaches_the_corners(density: Tensor) -> None:
    field = KernelField(density, ANGLES, (81, 121))
    middle = field.in_window(slice(0, 81), slice(0, 121))
    grid = field.on_grid(3)
    torch.testing.assert_close(grid[4:5], middle)
    torch.testing.assert_close(grid[:1], field.kernels(torch.tensor([[-40.0, -60.0]])))
    torch.testing.assert_close(grid.sum((1, 2, 3)), torch.ones(9))


def test_the_roll_is_the_standard_deviation_over_the_exposure(density: Tensor) -> None:
    assert KernelField(density, ANGLES, (64, 64)).roll == pytest.approx(float(ANGLES.std(correction=0)))


def test_a_place_that_no_pose_reaches_has_no_blur() -> None:
    kernel = normalised(torch.zeros(1, 1, 5, 5))
    assert float(kernel[0, 0, 2, 2]) == 1
    assert float(kernel.sum()) == 1
