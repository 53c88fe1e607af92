"""The masked least squares on the CUDA kernels, which run on the CPU here, against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference

pytestmark = pytest.mark.usefixtures("on_shim")


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest error of a sample relative to the largest value of that sample; NaN where anything is NaN."""
    actual, expected = actual.flatten(1).double(), expected.flatten(1).double()
    return float(((actual - expected).abs().amax(1) / expected.abs().amax(1).clamp_min(1e-6)).max())


def floats(*values: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in values)


def frame(height: int, width: int, top: int, bottom: int, left: int, right: int) -> Tensor:
    mask = torch.zeros(1, 1, height, width, dtype=torch.float64)
    mask[..., top : height - bottom, left : width - right] = 1
    return mask


def problem(mask: Tensor, batch: int, channels: int, size: int) -> tuple[Tensor, ...]:
    shape = batch, channels, *mask.shape[-2:]
    x0, y = torch.rand(2, *shape, dtype=torch.float64) * 2 - 1
    kernel = ext.reference.project_kernel(torch.rand(batch, 1, size, size, dtype=torch.float64) - 0.5)
    return x0, kernel, y, mask, torch.logspace(-1, -3, batch, dtype=torch.float64)


def holes(mask: Tensor, share: float) -> Tensor:
    return mask * (torch.rand(mask.shape) > share)


# Rows and columns of the frame on either side, more of them than have blocks, sides of every radix, odd sides.
FRAMES = {
    "even": frame(20, 24, 3, 4, 4, 2),
    "odd": frame(21, 33, 3, 4, 0, 5),
    "primes": frame(26, 34, 2, 3, 1, 3),
    "rows alone": frame(40, 22, 6, 7, 0, 0),
    "columns alone": frame(16, 45, 0, 0, 1, 0),
    "more rows than blocks": frame(130, 12, 60, 50, 2, 2),
    "more columns than blocks": frame(14, 150, 2, 1, 40, 60),
    "everything": torch.ones(1, 1, 12, 15, dtype=torch.float64),
    "nothing": torch.zeros(1, 1, 12, 15, dtype=torch.float64),
}


@pytest.mark.parametrize("mask", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_proximal_step_is_that_of_the_reference(mask, share):
    small = mask[0].numel() < 1000
    arguments = problem(holes(mask, share), 1 + small, 1 + small, 5)
    expected = reference.masked_proximal(*arguments, iterations=3)
    for one, exact in zip(ext.masked_proximal(*floats(*arguments), iterations=3), expected, strict=True):
        assert error(one, exact) <= 1e-5


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("own_masks", [False, True])
def test_samples_stop_alone(filled, own_masks):
    """As many iterations as in the reference, which differ by sample, and no more than are allowed."""
    mask = FRAMES["even"].repeat(3 if own_masks else 1, 1, 1, 1)
    if own_masks:
        mask[1] = holes(mask[1], 0.2)
        mask[2] = 1
    x0, kernel, y, mask, _ = problem(mask, 3, 1, 7)
    arguments = x0, kernel, y, mask, torch.tensor([10.0, 1e-4, 1e-2]).double()
    fill = torch.rand_like(x0) if filled else None
    single = floats(*arguments), None if fill is None else fill.float()
    for iterations in (0, 2, 100):
        exact = reference.masked_proximal(*arguments, fill, iterations=iterations)
        expected = reference.masked_proximal(*single[0], single[1], iterations=iterations)
        actual = ext.masked_proximal(*single[0], single[1], iterations=iterations)
        for results in zip(actual, expected, exact, strict=True):
            for one, two, three in zip(*(result.split(1) for result in results), strict=True):
                assert error(one, three) <= max(1e-5, 2 * error(two, three))


def kernel_problem(shape: tuple[int, int], batch: int, images: int, size: int) -> tuple[Tensor, ...]:
    """x, mask with weights between 0 and 1, weight and right-hand side."""
    x = torch.rand(batch, images, *shape, dtype=torch.float64) * 2 - 1
    mask = torch.rand(batch, 1, *shape, dtype=torch.float64)
    mask[..., :4, :] = mask[..., -3:] = 0
    right = torch.randn(batch, 1, size, size, dtype=torch.float64)
    return x, mask, torch.logspace(0, 2, batch, dtype=torch.float64), right


def factor_of(x: Tensor, mask: Tensor, weight: Tensor, size: int) -> Tensor:
    """Cholesky factor of nearly X^T M X + a; what is above its diagonal does not count."""
    places = [(a - size // 2, b - size // 2) for a in range(size) for b in range(size)]
    moved = torch.stack([x.roll(place, (-2, -1)) for place in places], 1)
    matrix = (mask.sqrt()[:, None] * moved).flatten(2)
    identity = torch.eye(size**2, dtype=torch.float64)
    factor = torch.linalg.cholesky(matrix @ matrix.mT + (weight[:, None, None] + 5) * identity)
    return factor + torch.ones_like(factor).triu(1)


@pytest.mark.parametrize(
    ("shape", "size"), [((20, 24), 1), ((21, 33), 4), ((26, 34), 7), ((16, 18), 16), ((64, 33), 5)]
)
@pytest.mark.parametrize("factored", [False, True])
def test_kernel_solution_is_that_of_the_reference(shape, size, factored):
    x, mask, weight, right = kernel_problem(shape, 2, 3, size)
    arguments = x, mask, weight, right, factor_of(x, mask, weight, size) if factored else None
    single = [None if value is None else value.float() for value in arguments]
    for numbers in ((0.0, 3), (1e-2, 50)):
        exact = reference.masked_kernel_solve(*arguments, *numbers)
        expected = reference.masked_kernel_solve(*single, *numbers)
        actual = ext.masked_kernel_solve(*single, tolerance=numbers[0], iterations=numbers[1])
        for one, two, three in zip(actual, expected, exact, strict=True):
            assert error(one, three) <= max(1e-5, 2 * error(two, three))


def test_every_order_gives_the_same_bits(thread_order):
    arguments = floats(*problem(holes(FRAMES["even"], 0.1), 2, 1, 5))
    expected = ext.masked_proximal(*arguments, iterations=2)
    for order in (1, 2, 3):
        thread_order(order)
        for one, other in zip(ext.masked_proximal(*arguments, iterations=2), expected, strict=True):
            assert one.equal(other)


def test_other_layouts_give_the_same():
    x0, kernel, y, mask, rho = floats(*problem(FRAMES["odd"], 2, 1, 5))
    expected = ext.masked_proximal(x0, kernel, y, mask, rho, y, iterations=1)
    turned = [value.mT.contiguous().mT for value in (x0, kernel, y, mask)]
    actual = ext.masked_proximal(*turned, rho.double(), turned[2], iterations=1)
    for one, other in zip(actual, expected, strict=True):
        assert one.equal(other)
        assert one.is_contiguous()


def test_sides_that_are_refused(shim):
    assert all(shim.has_grid(side, 1260) for side in (1, 31, 640, 1260))
    assert not shim.has_grid(64, 37)  # a prime
    assert not shim.has_grid(64, 1261)
