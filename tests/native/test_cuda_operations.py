"""The CUDA kernels and their Python side, on the CPU, against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import HQSFactors, reference

pytestmark = pytest.mark.usefixtures("on_shim")

ORDERS = range(5)
# (H, W, K): small, odd, non-square, kernels as large as the image, padded grids of 32, 64, 128 and more.
# Heights that are a power of two have kernels of their own, from 64 on.
IMAGES = [(16, 16, 16), (17, 23, 3), (40, 33, 32), (33, 64, 17), (65, 70, 64), (97, 90, 77)]
IMAGES += [(64, 64, 64), (128, 75, 33)]
BATCHES = [(1, 1, shape) for shape in IMAGES] + [
    (7, 3, (16, 16, 16)),
    (7, 4, (17, 23, 3)),
    (1, 3, (40, 33, 32)),
    (7, 4, (64, 23, 3)),
    *((1, 1, (height, 9, 9)) for height in (256, 512, 1024)),
]


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest error of a sample relative to the largest value of that sample; NaN where anything is NaN."""
    samples = expected.shape[0]
    largest = expected.reshape(samples, -1).abs().amax(1)
    return float(((actual.double() - expected).reshape(samples, -1).abs().amax(1) / largest).max())


def assert_exact(actual: Tensor, expected: Tensor, single: Tensor) -> None:
    """1e-5, or no worse than twice the same formula in float32 PyTorch, where that loses more."""
    assert actual.dtype == torch.float32
    assert actual.shape == expected.shape
    measured = error(actual, expected)
    assert measured <= max(1e-5, 2 * error(single, expected)), measured


def floats(*values: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in values)


def random_factors(batch: int, size: int) -> HQSFactors:
    """Filters of no symmetry: the ends of the half spectrum must be treated as a real transform treats them."""
    side = reference.padded_side(size, torch.device("cpu"))
    data_term = torch.randn(batch, 1, size, size, dtype=torch.float64)
    return HQSFactors(data_term, torch.randn(batch, 1, side, side // 2 + 1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("batch", "size"),
    [(1, 1), (7, 3), (1, 15), (7, 16), (2, 17), (1, 32), (1, 33), (2, 64), (1, 65), (7, 65), (1, 129)],
)
@pytest.mark.parametrize("project", [True, False])
def test_update_is_that_of_the_reference(batch, size, project):
    kernel = torch.randn(batch, 1, size, size, dtype=torch.float64)
    factors = random_factors(batch, size)
    expected = reference.hqs_kernel_update(kernel, factors, project)
    singles = kernel.float(), HQSFactors(*floats(*factors))
    actual = ext.hqs_kernel_update(*singles, project=project)
    assert_exact(actual, expected, reference.hqs_kernel_update(*singles, project))
    again = ext.hqs_kernel_update(actual, singles[1], project=project)
    assert ext.hqs_kernel_update(*singles, project=project, iterations=2).equal(again)


@pytest.mark.parametrize("size", [16, 31, 63, 65])
def test_update_of_special_kernels(size):
    factors = HQSFactors(*floats(*random_factors(5, size)))
    kernel = torch.rand(5, 1, size, size)
    kernel[0] = 0
    kernel[1] *= 1e4
    factors.data_term[2] = -1e6  # nothing left: uniform
    factors.data_term[3, 0, 0, 0] = torch.nan
    expected = reference.hqs_kernel_update(kernel.double(), HQSFactors(*(f.double() for f in factors)))
    actual = ext.hqs_kernel_update(kernel, factors)
    assert_exact(actual, expected, reference.hqs_kernel_update(kernel, factors))
    torch.testing.assert_close(actual[2:4], torch.full((2, 1, size, size), 1 / size**2))


@pytest.mark.parametrize(("batch", "channels", "shape"), BATCHES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_factors_are_those_of_the_reference(problem, batch, channels, shape, per_channel):
    _, _, y = problem(batch, channels, shape)
    x = torch.rand(batch, 1 + per_channel, *y.shape[1:], dtype=torch.float64) * 2 - 1
    weight = torch.logspace(-1, 4, 7, dtype=torch.float64)[:batch]
    rest = (weight, shape[2], per_channel)
    expected = reference.hqs_prepare(x, y, *rest)
    single = reference.hqs_prepare(*floats(x, y), *rest)
    for y_hat in (None, torch.fft.rfft2(y.float())):
        actual = ext.hqs_prepare(*floats(x, y), weight, shape[2], per_channel=per_channel, y_hat=y_hat)
        for one, two, three in zip(actual, expected, single, strict=True):
            assert_exact(one, two, three)


def test_twenty_iterations_stay_close(problem):
    x, kernel, _ = problem(2, 3, (40, 37, 16))
    y = reference.blur(x, kernel)
    weight = torch.full((2,), 2e3)
    double = torch.full_like(kernel, 1 / 256)
    single = ours = double.float()
    factors = reference.hqs_prepare(x[:, None], y, weight, 16)
    single_factors = reference.hqs_prepare(x[:, None].float(), y.float(), weight, 16)
    our_factors = ext.hqs_prepare(x[:, None].float(), y.float(), weight, 16)
    for _ in range(20):
        double = reference.hqs_kernel_update(double, factors)
        single = reference.hqs_kernel_update(single, single_factors)
        ours = ext.hqs_kernel_update(ours, our_factors)
    assert_exact(ours, double, single)
    at_once = ext.hqs_kernel_update(torch.full_like(ours, 1 / 256), our_factors, iterations=20)
    assert at_once.equal(ours)  # one launch instead of 20


@pytest.mark.parametrize(("batch", "channels", "shape"), BATCHES)
def test_fidelity_and_proximal_step_are_those_of_the_reference(problem, batch, channels, shape):
    x, kernel, y = problem(batch, channels, shape)
    rho = torch.logspace(-3, 2, 7, dtype=torch.float64)[:batch]
    singles = floats(x, kernel, y)
    expected = (*reference.blur_fidelity(x, kernel, y), reference.blur_proximal(x, kernel, y, rho))
    single = (*reference.blur_fidelity(*singles), reference.blur_proximal(*singles, rho))
    for y_hat in (None, torch.fft.rfft2(y.float())):
        actual = (
            *ext.blur_fidelity(*singles, y_hat=y_hat),
            ext.blur_proximal(*singles, rho, y_hat=y_hat),
        )
        for one, two, three in zip(actual, expected, single, strict=True):
            assert_exact(one, two, three)


def test_large_image_and_large_kernel(problem):
    x, kernel, y = problem(1, 1, (600, 401, 129))
    singles = floats(x, kernel, y)
    expected, single = reference.blur_fidelity(x, kernel, y), reference.blur_fidelity(*singles)
    for one, two, three in zip(ext.blur_fidelity(*singles), expected, single, strict=True):
        assert_exact(one, two, three)
    rest = (torch.ones(1), 129)
    expected = reference.hqs_prepare(x[:, None], y, *rest)
    single = reference.hqs_prepare(x[:, None].float(), y.float(), *rest)
    for one, two, three in zip(
        ext.hqs_prepare(x[:, None].float(), y.float(), *rest), expected, single, strict=True
    ):
        assert_exact(one, two, three)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extreme_images(problem, scale):
    x, kernel, y = problem(2, 3, (17, 20, 5), torch.float32)
    x, y, rho = x * scale, y * scale, torch.tensor([1e-6, 1.0])
    actual = (
        *ext.blur_fidelity(x, kernel, y),
        ext.blur_proximal(x, kernel, y, rho),
        *ext.hqs_prepare(x[:, None], y, rho, 5),
    )
    single = (
        *reference.blur_fidelity(x, kernel, y),
        reference.blur_proximal(x, kernel, y, rho),
        *reference.hqs_prepare(x[:, None], y, rho, 5),
    )
    x, kernel, y = x.double(), kernel.double(), y.double()
    expected = (
        *reference.blur_fidelity(x, kernel, y),
        reference.blur_proximal(x, kernel, y, rho),
        *reference.hqs_prepare(x[:, None], y, rho, 5),
    )
    for one, two, three in zip(actual, expected, single, strict=True):
        if two.any():
            assert_exact(one, two, three)
        else:
            assert one.equal(two.float())


def test_other_layouts_give_the_same(problem):
    x, kernel, y = problem(2, 3, (18, 21, 7), torch.float32)
    rho, factors = torch.rand(2), HQSFactors(*floats(*random_factors(2, 7)))
    y_hat = torch.fft.rfft2(y)

    def everything(x, kernel, y, y_hat, factors):
        return (
            *ext.blur_fidelity(x, kernel, y, y_hat=y_hat),
            ext.blur_proximal(x, kernel, y, rho, y_hat=y_hat),
            *ext.hqs_prepare(x[:, None], y, rho, 7, y_hat=y_hat),
            ext.hqs_kernel_update(kernel, factors),
            ext.project_kernel(kernel),
        )

    def strided(tensor: Tensor) -> Tensor:
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)

    plain = everything(x, kernel, y, y_hat, factors)
    last = torch.channels_last
    lazy = y_hat.conj().resolve_conj().conj()
    assert lazy.is_conj()
    others = (x.to(memory_format=last), strided(kernel), y.to(memory_format=last), lazy)
    for one, two in zip(plain, everything(*others, HQSFactors(*map(strided, factors))), strict=True):
        assert one.equal(two)
        assert two.is_contiguous()


def test_empty_batch():
    x, kernel, y = torch.empty(0, 3, 16, 18), torch.empty(0, 1, 5, 5), torch.empty(0, 3, 16, 18)
    actual = ext.blur_fidelity(x, kernel, y)
    assert [part.shape for part in actual] == [(0,), x.shape, x.shape]
    assert ext.blur_proximal(x, kernel, y, torch.empty(0)).shape == x.shape
    assert ext.hqs_prepare(x[:, None], y, torch.empty(0), 5).filter.shape == (0, 1, 32, 17)
    for size in (5, 65):
        factors = HQSFactors(*floats(*random_factors(0, size)))
        assert ext.hqs_kernel_update(torch.empty(0, 1, size, size), factors).shape == (0, 1, size, size)
    assert ext.project_kernel(kernel).shape == kernel.shape


def test_projection_is_that_of_the_reference():
    kernel = torch.randn(3, 1, 35, 35, dtype=torch.float64)
    kernel[1] = -1
    single = reference.project_kernel(kernel.float())
    assert_exact(ext.project_kernel(kernel.float()), reference.project_kernel(kernel), single)


def test_results_do_not_depend_on_the_order_of_the_threads(problem, thread_order):
    x, kernel, y = problem(2, 3, (33, 36, 16), torch.float32)
    factors = {size: HQSFactors(*floats(*random_factors(2, size))) for size in (16, 32, 64, 70)}
    kernels = {size: torch.rand(2, 1, size, size) for size in factors}
    first: list[Tensor] = []
    for order in ORDERS:
        thread_order(order)
        actual = [
            *ext.blur_fidelity(x, kernel, y),
            ext.blur_proximal(x, kernel, y, torch.ones(2)),
            *ext.hqs_prepare(x[:, None], y, torch.ones(2), 16),
            *ext.hqs_prepare(x[:, None], y, torch.ones(2), 16, per_channel=True),
            *(ext.hqs_kernel_update(kernels[size], factors[size], iterations=2) for size in factors),
        ]
        first = first or actual
        assert all(one.equal(two) for one, two in zip(first, actual, strict=True)), order


def test_launch_errors_are_exceptions(shim):
    arrays = {"kernel": 0, "data_term": 0, "filter": 0, "updated": 0}
    arguments = {**arrays, "batch": 1, "project": True, "iterations": 1, "stream": 0}
    with pytest.raises(RuntimeError, match="hqs_kernel_update: invalid argument"):
        shim.hqs_kernel_update(**arguments, size=17, side=32, device=0)
    with pytest.raises(RuntimeError, match="hqs_kernel_update: invalid argument"):
        shim.hqs_kernel_update(**arguments, size=3, side=48, device=0)
    with pytest.raises(RuntimeError, match="hqs_kernel_update: invalid argument"):
        shim.hqs_kernel_update(**arguments, size=3, side=32, device=1)
    with pytest.raises(TypeError):
        shim.hqs_kernel_update(**arguments, size=3.5, side=32, device=0)
