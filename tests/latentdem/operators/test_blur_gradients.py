"""The M-step on gradients against independent formulas in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators.blur import HQS, Blur, differences
from latentdem.operators.kernels import gaussian_kernel, motion_kernels

Scene = Callable[..., Tensor]
SHAPE = (30, 37)


def projected(kernel: Tensor) -> Tensor:
    return kernel.clamp_min(0) / kernel.clamp_min(0).sum()


def test_differences_are_those_to_the_next_pixel_across_and_down() -> None:
    image = torch.arange(12.0).square().view(1, 3, 4)
    across, down = differences(image)
    for row in range(3):
        for column in range(4):
            here = image[0, row, column]
            assert across[row, column] == here - image[0, row, (column + 1) % 4]
            assert down[row, column] == here - image[0, (row + 1) % 3, column]


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("samples", [1, 2])
def test_circular_update_weighs_frequencies_by_their_gradients(scene: Scene, size: int, samples: int) -> None:
    """Eq. 11 with all spectra multiplied by |1 - e^-iw|^2, summed over both directions."""
    x = torch.stack([scene(*SHAPE, seed=seed)[0] for seed in range(samples)])[None]
    kernel, start, delta, variance = motion_kernels(1, size, 0.5, 3), gaussian_kernel(size, 1.5), 40.0, 0.01
    y = ext.blur(x[:, 0], kernel) + 0.01 * scene(*SHAPE, seed=9)
    operator = Blur(size, hqs=HQS(1, delta, gradients=True))
    result = operator.m_step(x, y, start, torch.tensor([variance]))

    rows, columns = (2 * torch.pi * torch.fft.fftfreq(n, dtype=torch.float64) for n in SHAPE)
    weight = sum((1 - torch.exp(-1j * w)).abs() ** 2 for w in (rows[:, None], columns))
    image, measured = torch.fft.fft2(x[0].double()), torch.fft.fft2(y.double())
    placed = torch.zeros(SHAPE, dtype=torch.float64)
    placed[:size, :size] = start[0, 0].double()
    placed = placed.roll((-(size // 2), -(size // 2)), (0, 1))
    a = delta * variance
    data = (image.conj() * measured).sum((0, 1)) * weight
    power = (image.abs() ** 2).sum((0, 1)) * weight
    whole = torch.fft.ifft2((data + a * torch.fft.fft2(placed)) / (power + a)).real
    expected = projected(whole.roll((size // 2, size // 2), (0, 1))[:size, :size])
    torch.testing.assert_close(result[0, 0].double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [6, 7])
def test_masked_update_is_the_dense_solution(scene: Scene, size: int) -> None:
    """min_k ||m D (y - k * x)||^2 + a ||k - k_0||^2, m = 1 far enough from unmeasured pixels."""
    mask, margin, delta, variance = torch.zeros(1, 1, *SHAPE), size // 4, 40.0, 0.01
    mask[..., 4:-3, 5:-6] = 1
    x, kernel, start = scene(*SHAPE), motion_kernels(1, size, 0.5, 3), gaussian_kernel(size, 1.5)
    y = ext.blur(x, kernel) + 0.01 * scene(*SHAPE, seed=9)
    result, same = (
        Blur(size, hqs=HQS(1, delta, gradients=True), mask=mask).m_step(
            x[:, None], torch.where(mask > 0, y, torch.tensor(other)), start, torch.tensor([variance])
        )
        for other in (0.0, 3.0)
    )
    assert torch.equal(result, same)

    counted = torch.zeros(SHAPE, dtype=torch.float64)
    # One pixel less below and on the right: a difference reaches the next pixel.
    counted[4 + margin : -3 - margin - 1, 5 + margin : -6 - margin - 1] = 1
    image, columns = x[0].double(), []
    for row in range(size):
        for column in range(size):
            moved = image.roll((row - size // 2, column - size // 2), (-2, -1))
            columns.append(_gradients(moved, counted))
    matrix, measured = torch.stack(columns, 1), _gradients(y[0].double(), counted)
    a = delta * variance
    left = matrix.T @ matrix + a * torch.eye(size * size, dtype=torch.float64)
    solved = torch.linalg.solve(left, matrix.T @ measured + a * start.flatten().double())
    torch.testing.assert_close(result.flatten().double(), projected(solved), rtol=0, atol=1e-3)


def _gradients(image: Tensor, counted: Tensor) -> Tensor:
    across, down = (image - image.roll(-1, axis) for axis in (-1, -2))
    return torch.cat([(counted * across).flatten(), (counted * down).flatten()])
