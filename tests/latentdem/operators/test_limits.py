from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators import StridedBlur
from latentdem.operators.blur import Blur
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.operators.limits import Limits


def text_like(count: int = 1, size: int = 48) -> Tensor:
    """(count, 3, size, size) black strokes on white."""
    noise = torch.rand(count, 1, size // 6, size // 6, generator=torch.Generator().manual_seed(4))
    strokes = torch.where(noise < 0.4, -1.0, 1.0)
    return torch.nn.functional.interpolate(strokes, scale_factor=6).expand(-1, 3, -1, -1).contiguous()


def with_lights(x: Tensor) -> Tensor:
    """The same scene at night, with lamps far brighter than white."""
    x = 0.4 * x - 0.6
    x[..., 10:13, 20:23] = 6
    x[..., 30:33, 8:11] = 6
    return x


def limits(*white: float) -> Limits:
    return Limits(torch.tensor(white, dtype=torch.float64), tolerance=0)


@pytest.mark.parametrize("white", [1.0, torch.inf])
def test_the_image_is_the_bounded_least_squares_of_an_independent_solver(white: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x0 = 1.5 * torch.randn(1, 1, 7, 9, dtype=torch.float64, generator=generator)
    y = torch.randn(1, 1, 7, 9, dtype=torch.float64, generator=generator)
    kernel, rho = motion_kernels(1, 5, 0.5, 1).double(), 0.2
    operator = Blur(5)
    operator.limits = limits(white)
    found = operator.proximal(x0, kernel, y, torch.tensor([rho], dtype=torch.float64), iterations=300)
    units = torch.eye(63, dtype=torch.float64).view(63, 1, 7, 9)
    columns = ext.blur(units, kernel.expand(63, -1, -1, -1)).flatten(1).T
    matrix = torch.cat([columns, rho**0.5 * torch.eye(63, dtype=torch.float64)])
    target = torch.cat([y.flatten(), rho**0.5 * x0.flatten()])
    expected = lsq_linear(matrix.numpy(), target.numpy(), bounds=(-1.0, white), tol=1e-12)
    torch.testing.assert_close(found.flatten(), torch.from_numpy(expected.x), atol=1e-6, rtol=0)


def test_photographs_of_a_batch_and_their_samples_keep_their_own_limits() -> None:
    x0, y = (3 * torch.randn(4, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    kernel, rho = gaussian_kernel(5, 1.0).double().repeat(4, 1, 1, 1), torch.full((4,), 0.1).double()
    together, alone = Blur(5), Blur(5)
    together.limits = limits(1.0, torch.inf)
    found = together.proximal(x0, kernel, y, rho)
    for n in range(4):
        alone.limits = limits([1.0, torch.inf][n // 2])
        one = slice(n, n + 1)
        torch.testing.assert_close(found[one], alone.proximal(x0[one], kernel[one], y[one], rho[one]))


@pytest.mark.parametrize("masked", [False, True])
def test_an_image_within_limits_explains_what_a_clipped_one_does_not(masked: bool) -> None:
    x, kernel, sigma = text_like(), motion_kernels(1, 9, 0.5, 3), 0.02
    y = ext.blur(x, kernel) + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 4:-4, 4:-4] = 1
    operator = Blur(9, mask=mask if masked else None)
    rho = torch.tensor([sigma**2 / 0.05])
    clipped = operator.proximal(y, kernel, y, rho).clamp(-1, 1)
    operator.find_limits(kernel, y, torch.tensor([sigma**2]))
    assert operator.limits is not None
    assert operator.limits.white.tolist() == [1]
    limited = operator.proximal(y, kernel, y, rho).clamp(-1, 1)
    assert operator.residual(limited, kernel, y) < 0.7 * operator.residual(clipped, kernel, y)
    inside = mask > 0 if masked else torch.ones_like(mask) > 0
    error, before = ((image - x).square()[inside.expand_as(x)].mean() for image in (limited, clipped))
    assert error < 0.8 * before


def test_white_is_no_limit_where_there_are_lights() -> None:
    x = torch.cat([text_like(), with_lights(text_like())])
    kernel = motion_kernels(1, 9, 0.5, 3).repeat(2, 1, 1, 1)
    y = ext.blur(x, kernel)
    y = y + 0.01 * torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    mask = (y.amax((0, 1), keepdim=True) < 1.1).float()  # what the sensor clips does not count
    operator = Blur(9, mask=mask)
    operator.find_limits(kernel, y, torch.full((2,), 1e-4))
    assert operator.limits is not None
    assert operator.limits.white.tolist() == [1, torch.inf]


def test_an_image_that_is_sampled_has_limits_too(scene: Callable[..., Tensor]) -> None:
    grid = torch.zeros(1, 1, 32, 32)
    grid[..., ::2, ::2] = 1
    x, kernel = scene(32, 32, seed=1), gaussian_kernel(7, 1.2)
    operator = StridedBlur(7, mask=grid, stride=2)
    y = ext.blur(1.2 * x / x.abs().amax(), kernel) * grid
    start, rho = torch.zeros_like(x), torch.tensor([1e-3])
    assert operator.proximal(start, kernel, y, rho).abs().max() > 1.2
    operator.limits = Limits(torch.ones(1))
    assert operator.proximal(start, kernel, y, rho, iterations=100).abs().max() < 1.01


def test_the_splitting_ends_where_the_limits_are_met_and_each_image_as_if_alone() -> None:
    calls = 0

    def proximal(target: Tensor, rho: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return target

    inside, beyond = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 3.0)
    rho, within = torch.ones(2), Limits(torch.ones(2))
    assert torch.equal(Limits(torch.ones(1)).proximal(proximal, inside, rho[:1], 10), inside)
    assert calls == 1
    both = within.proximal(proximal, torch.cat([inside, beyond]), rho, 50)
    assert calls < 40
    assert torch.equal(both[:1], inside)
    alone = Limits(torch.ones(1)).proximal(proximal, beyond, rho[:1], 50)
    torch.testing.assert_close(both[1:], alone)
    assert (alone - 1).abs().max() < 0.01
