"""The operator of a burst: least squares over several frames against dense ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators import Blur, BurstBlur
from latentdem.operators.kernels import gaussian_kernel, motion_kernels

Scene = Callable[..., Tensor]
SIZE = 8, 9  # of the grid


@pytest.fixture
def kernels() -> Tensor:
    """(1, 3, 5, 5) float64."""
    return motion_kernels(3, 5, 0.5, seed=1)[:, 0][None].double()


@pytest.fixture
def operator() -> BurstBlur:
    """Three frames of other noise, each without another part of the grid."""
    mask = torch.ones(3, 1, *SIZE, dtype=torch.float64)
    mask[0, :, :2], mask[1, :, :, 6:], mask[2, :, 3, 4] = 0, 0, 0
    return BurstBlur(mask, torch.tensor([1.0, 0.5, 0.8], dtype=torch.float64))


def matrix(operator: BurstBlur, kernels: Tensor) -> Tensor:
    """A of one channel, (F H W, H W)."""
    pixels = SIZE[0] * SIZE[1]
    basis = torch.eye(pixels, dtype=torch.float64).view(pixels, 1, *SIZE)
    return operator(basis, kernels.expand(pixels, -1, -1, -1)).flatten(1).T


def test_frames_are_blurred_and_weighted(operator: BurstBlur, kernels: Tensor, scene: Scene) -> None:
    x = scene(*SIZE).double()
    y = operator(x, kernels).unflatten(1, (3, 3))
    for f, weight in enumerate((1.0, 0.5, 0.8)):
        torch.testing.assert_close(y[:, f], weight * ext.blur(x, kernels[:, f : f + 1]))
    frames = torch.cat([ext.blur(x, kernels[:, f : f + 1]) for f in range(3)])
    torch.testing.assert_close(operator.stacked(frames), operator(x, kernels))


@pytest.mark.parametrize("rho", [1e-2, 1.0])
def test_the_proximal_step_is_the_dense_solution(
    operator: BurstBlur, kernels: Tensor, scene: Scene, rho: float
) -> None:
    a, x0 = matrix(operator, kernels), scene(*SIZE, channels=1, seed=2).double()
    y = torch.randn(1, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = operator.measured(y).flatten()[:, None] * a
    normal = seen.T @ seen + rho * torch.eye(len(seen.T), dtype=torch.float64)
    expected = torch.linalg.solve(normal, seen.T @ y.flatten() + rho * x0.flatten()).view_as(x0)
    for _ in range(2):  # the second one from the solution of the first
        result = operator.proximal(x0, kernels, y, torch.tensor([rho], dtype=torch.float64))
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-3 * float(expected.std()))


def test_unmeasured_pixels_do_not_count(operator: BurstBlur, kernels: Tensor, scene: Scene) -> None:
    x = scene(*SIZE).double()
    y = operator(x, kernels)
    spoiled = torch.where(operator.measured(y) > 0, y + 0.1, 9.0)
    torch.testing.assert_close(operator.mean_square(x, kernels, spoiled), torch.tensor([0.01]).double())
    rho = torch.ones(1, dtype=torch.float64)
    first = operator.proximal(x, kernels, torch.where(operator.measured(y) > 0, y, 9.0), rho)
    torch.testing.assert_close(first, x)


def test_the_spectrum_is_that_of_the_dense_operator(kernels: Tensor, scene: Scene) -> None:
    """With every pixel measured, and frequencies counted as often as they stand in the whole plane."""
    operator = BurstBlur(torch.ones(3, 1, *SIZE, dtype=torch.float64), torch.tensor([1.0, 0.5, 0.8]).double())
    a, x = matrix(operator, kernels), scene(*SIZE, channels=1).double()
    y = torch.randn(1, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gains, powers = operator.spectrum(x, kernels, y)
    count = torch.full((SIZE[1] // 2 + 1,), 2)
    count[0] = 1  # the width is odd
    counts = count.expand(3, SIZE[0], -1).flatten()
    values = gains[0].repeat_interleave(counts).sort().values
    torch.testing.assert_close(values, torch.linalg.eigvalsh(a @ a.T).clamp_min(0), atol=1e-9, rtol=0)
    gap = y - operator(x, kernels)
    torch.testing.assert_close((counts * powers[0]).sum(), gap.square().sum())
    # In the null space of A^T lies what no image explains.
    unexplained = gap.flatten() - a @ torch.linalg.lstsq(a, gap.flatten()[:, None]).solution[:, 0]
    null = (counts * powers[0])[gains[0] == 0].sum()
    torch.testing.assert_close(null, unexplained.square().sum())


def test_a_burst_of_one_is_a_blur(scene: Scene) -> None:
    x0, kernel = scene(16, 16), gaussian_kernel(5, 1.2)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 2:-2, 2:-2] = 1
    y = ext.blur(scene(16, 16, seed=3), kernel)
    burst, blur = BurstBlur(mask, torch.ones(1)), Blur(5, mask=mask)
    rho = torch.tensor([0.05])
    gap = burst.proximal(x0, kernel, y, rho) - blur.proximal(x0, kernel, y, rho)
    assert gap.square().mean().sqrt() < 2 * 0.002  # what `Blur` leaves is at most 0.002
    torch.testing.assert_close(burst.mean_square(x0, kernel, y), blur.mean_square(x0, kernel, y))
    for one, other in zip(burst.spectrum(x0, kernel, y), blur.spectrum(x0, kernel, y), strict=True):
        torch.testing.assert_close(one, other)


def test_images_of_a_batch_do_not_mix(operator: BurstBlur, kernels: Tensor, scene: Scene) -> None:
    x0 = torch.cat([scene(*SIZE, seed=s).double() for s in (0, 1)])
    both = torch.cat([kernels, kernels.flip(1)])
    y, rho = operator(x0, both) + 0.1, torch.tensor([0.1, 0.01]).double()
    together = operator.proximal(x0, both, y, rho)
    operator.warm_start = None
    alone = [operator.proximal(x0[:1], both[:1], y[:1], rho[:1])]
    operator.warm_start = None
    alone.append(operator.proximal(x0[1:], both[1:], y[1:], rho[1:]))
    torch.testing.assert_close(together, torch.cat(alone))
