from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference

from .fuzzing import fuzz

# (H, W, K): the padded grid of the kernel (at least 2K - 1 points) is smaller than the image, larger, mixed.
SHAPES = [(16, 16, 3), (21, 30, 8), (24, 33, 9), (12, 13, 10), (9, 9, 9), (40, 12, 7)]


def literal_update(kernel: Tensor, x: Tensor, y: Tensor, weight: Tensor, per_channel: bool) -> Tensor:
    """LatentDEM Eq. 17-19 as printed: complex transforms of everything at the size of the image."""
    size, (height, width) = kernel.shape[-1], y.shape[-2:]
    rows = [(a - size // 2) % height for a in range(size)]
    columns = [(b - size // 2) % width for b in range(size)]
    placed = torch.zeros(kernel.shape[0], height, width, dtype=kernel.dtype)
    for a, row in enumerate(rows):
        for b, column in enumerate(columns):
            placed[:, row, column] = kernel[:, 0, a, b]
    x_hat, y_hat, k_hat = torch.fft.fft2(x), torch.fft.fft2(y), torch.fft.fft2(placed)
    channels = y.shape[1]
    groups = [[c] for c in range(channels)] if per_channel else [list(range(channels))]
    solutions = []
    for group in groups:
        numerator = weight[:, None, None] * k_hat
        denominator = weight[:, None, None].expand(-1, height, width)
        for c in group:
            for s in range(x.shape[1]):
                numerator = numerator + x_hat[:, s, c].conj() * y_hat[:, c]
                denominator = denominator + x_hat[:, s, c].abs() ** 2
        solutions.append(torch.fft.ifft2(numerator / denominator).real)
    mean = torch.stack(solutions).mean(0)
    return mean[:, rows][:, :, columns][:, None]


def samples_like(y: Tensor, samples: int) -> Tensor:
    return torch.rand(y.shape[0], samples, *y.shape[1:], dtype=y.dtype) * 2 - 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch", "channels", "samples"), [(1, 1, 1), (3, 3, 2)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_twenty_iterations_equal_the_literal_formula(problem, shape, batch, channels, samples, per_channel):
    _, kernel, y = problem(batch, channels, shape)
    x = samples_like(y, samples)
    weight = torch.tensor([2e3, 30.0, 0.5], dtype=torch.float64)[:batch]
    factors = ext.hqs_prepare(x, y, weight, shape[2], per_channel=per_channel)
    expected = kernel
    for _ in range(20):
        kernel = ext.hqs_kernel_update(kernel, factors)
        expected = literal_update(expected, x, y, weight, per_channel).clamp(min=0)
        expected = expected / expected.sum(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(kernel, expected)


# Images whose rows the native module transforms; kernels from one block of 16 columns to nine, odd and even.
SINGLE_SHAPES = [
    (16, 16, 3),
    (2, 1, 1),
    (21, 30, 16),
    (33, 40, 17),
    (66, 70, 33),
    (128, 131, 64),
    (130, 149, 129),
]


def small_weights(batch: int) -> Tensor:
    """On the scale of sum |F x|^2, where the result depends on image, measurement and kernel alike."""
    return torch.tensor([2e3, 30.0, 0.5, 1e4, 1.0, 100.0, 5e3], dtype=torch.float64)[:batch]


@pytest.mark.usefixtures("poisoned", "backend")
@pytest.mark.parametrize("shape", SINGLE_SHAPES)
@pytest.mark.parametrize(("batch", "channels", "samples"), [(1, 3, 1), (7, 1, 2)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_single_precision_is_close_to_double(
    problem, assert_close_per_sample, shape, batch, channels, samples, per_channel
):
    _, kernel, y = problem(batch, channels, shape)
    x, weight = samples_like(y, samples), small_weights(batch)
    exact = reference.hqs_prepare(x, y, weight, shape[2], per_channel)
    for y_hat in (None, torch.fft.rfft2(y.float())):
        factors = ext.hqs_prepare(x.float(), y.float(), weight, shape[2], per_channel=per_channel, y_hat=y_hat)
        for actual, expected in zip(factors, exact, strict=True):
            # Measured: 2.2e-6 where the response almost vanishes, 1e-6 elsewhere.
            assert_close_per_sample(actual, expected, 1e-5)
    for project in (True, False):
        actual = ext.hqs_kernel_update(kernel.float(), factors, project=project, iterations=5)
        # Measured: 1e-6.
        assert_close_per_sample(actual, reference.hqs_kernel_update(kernel, exact, project, 5), 1e-5)


@pytest.mark.usefixtures("backend")
def test_single_precision_on_a_large_image(problem, assert_close_per_sample):
    _, kernel, y = problem(1, 3, (512, 600, 64))
    exact = reference.hqs_prepare(y[:, None], y, small_weights(1), 64)
    factors = ext.hqs_prepare(y[:, None].float(), y.float(), small_weights(1), 64)
    assert_close_per_sample(factors.data_term, exact.data_term, 1e-5)
    actual = ext.hqs_kernel_update(kernel.float(), factors, iterations=20)
    assert_close_per_sample(actual, reference.hqs_kernel_update(kernel, exact, True, 20), 1e-5)


@pytest.mark.usefixtures("poisoned", "backend")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_iterations_are_repeated_updates(problem, backend, dtype):
    if backend == "cpp" and dtype == torch.float64:
        pytest.skip("float32 only")
    _, kernel, y = problem(2, 3, (40, 30, 12), dtype)
    factors = ext.hqs_prepare(y[:, None], y, small_weights(2), 12)
    for project in (True, False):
        expected = kernel
        for _ in range(7):
            expected = ext.hqs_kernel_update(expected, factors, project=project)
        actual = ext.hqs_kernel_update(kernel, factors, project=project, iterations=7)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("poisoned", "backend")
def test_a_kernel_without_a_positive_value_becomes_uniform():
    kernel = torch.rand(3, 1, 5, 5)
    data_term = torch.stack([-10 * torch.ones(1, 5, 5), torch.zeros(1, 5, 5), torch.full((1, 5, 5), math.nan)])
    factors = ext.HQSFactors(data_term, torch.zeros(3, 1, 10, 6))
    for iterations in (1, 2):
        actual = ext.hqs_kernel_update(kernel, factors, iterations=iterations)
        torch.testing.assert_close(actual, torch.full_like(actual, 1 / 25))


@pytest.mark.usefixtures("backend")
def test_extreme_values(problem, assert_close_per_sample):
    _, kernel, y = problem(2, 3, (24, 26, 9))
    x = samples_like(y, 1)
    for scale, weight in ((1e4, 1e8), (1e-4, 1e-8), (1e4, 1.0)):
        weights = torch.full((2,), weight, dtype=torch.float64)
        exact = reference.hqs_prepare(scale * x, scale * y, weights, 9)
        factors = ext.hqs_prepare((scale * x).float(), (scale * y).float(), weights, 9)
        assert_close_per_sample(factors.data_term, exact.data_term, 1e-5)
        actual = ext.hqs_kernel_update(kernel.float(), factors, iterations=3)
        assert_close_per_sample(actual, reference.hqs_kernel_update(kernel, exact, True, 3), 1e-5)
    zero = torch.zeros_like(y).float()
    factors = ext.hqs_prepare(zero[:, None], zero, torch.ones(2), 9)
    assert (factors.data_term == 0).all()
    # Nothing was measured: the filter is one and the kernel stays.
    assert_close_per_sample(ext.hqs_kernel_update(kernel.float(), factors), kernel, 1e-6)


@pytest.mark.usefixtures("backend")
def test_layout_of_the_arguments_does_not_matter(problem):
    _, kernel, y = problem(2, 3, (20, 22, 6), torch.float32)
    x, weight = samples_like(y, 2), torch.tensor([10.0, 100.0])
    expected = ext.hqs_prepare(x, y, weight, 6)
    strided = ext.hqs_prepare(
        x.transpose(1, 2).contiguous().transpose(1, 2),
        y.to(memory_format=torch.channels_last),
        weight.repeat_interleave(2)[::2].double(),
        6,
        y_hat=torch.fft.rfft2(y).mT.contiguous().mT,
    )
    for actual, contiguous in zip(strided, expected, strict=True):
        assert actual.is_contiguous()
        torch.testing.assert_close(actual, contiguous, rtol=1e-5, atol=1e-6)
    transposed = ext.HQSFactors(*(factor.mT.contiguous().mT for factor in expected))
    torch.testing.assert_close(
        ext.hqs_kernel_update(kernel.mT.contiguous().mT, transposed),
        ext.hqs_kernel_update(kernel, expected),
        rtol=1e-6,
        atol=1e-7,
    )


def test_results_do_not_depend_on_the_number_of_threads(problem, backend, on_every_number_of_threads):
    _, kernel, y = problem(5, 3, (120, 130, 40), torch.float32)
    weight = small_weights(5)

    def solve() -> tuple[Tensor, ...]:
        factors = ext.hqs_prepare(y[:, None], y, weight, 40)
        return (*factors, ext.hqs_kernel_update(kernel, factors, iterations=20))

    first, *others = on_every_number_of_threads(solve)
    for other in others:
        for one, same in zip(other, first, strict=True):
            # PyTorch sums in an order that depends on the threads.
            torch.testing.assert_close(one, same, rtol=0, atol=1e-6 if backend == "reference" else 0)


@pytest.mark.usefixtures("backend")
def test_an_empty_batch_stays_empty(problem):
    _, kernel, y = problem(0, 3, (20, 22, 6), torch.float32)
    factors = ext.hqs_prepare(y[:, None], y, torch.ones(0), 6)
    assert ext.hqs_kernel_update(kernel, factors, iterations=3).shape == kernel.shape


def test_native_update_refuses_a_padded_grid_it_cannot_transform():
    if not ext.backends()["cpp"].available:
        pytest.skip(ext.backends()["cpp"].reason)
    kernel = torch.rand(1, 1, 3, 3)
    for side in (7, 34):  # odd; twice 17
        factors = ext.HQSFactors(kernel, torch.ones(1, 1, side, side // 2 + 1))
        torch.testing.assert_close(
            ext.hqs_kernel_update(kernel, factors, project=False), 2 * kernel, rtol=1e-5, atol=1e-6
        )
        with ext.use_backend("cpp"), pytest.raises(RuntimeError, match=f"factors.filter has {side} points"):
            ext.hqs_kernel_update(kernel, factors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_registration(problem, dtype):
    _, kernel, y = problem(2, 3, (12, 13, 5), dtype)
    x, operations = samples_like(y, 2), torch.ops.latentdem
    for y_hat in (None, torch.fft.rfft2(y)):
        torch.library.opcheck(operations.hqs_prepare.default, (x, y, torch.ones(2), 5, False, y_hat))
    factors = ext.hqs_prepare(x, y, torch.ones(2), 5)
    torch.library.opcheck(operations.hqs_kernel_update.default, (kernel, *factors, True, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(problem, compiler, dtype):
    _, kernel, y = problem(2, 3, (12, 13, 5), dtype)

    def solve(kernel: Tensor) -> Tensor:
        factors = ext.hqs_prepare(y[:, None], y, torch.ones(2), 5)
        return ext.project_kernel(ext.hqs_kernel_update(kernel, factors, iterations=3) - 0.01)

    compiled = torch.compile(solve, fullgraph=True, backend=compiler)
    torch.testing.assert_close(compiled(kernel), solve(kernel))


def test_update_minimises_the_least_squares_objective(problem, blur_matrix):
    """With K as large as the image nothing is cropped: argmin_h sum ||y - x*h||^2 + a ||h - k||^2."""
    size = 5
    _, kernel, y = problem(1, 3, (size, size, size))
    x = samples_like(y, 2)
    weight = torch.tensor([4.0], dtype=torch.float64)
    normal = weight * torch.eye(size * size, dtype=torch.float64)
    right = weight * kernel.flatten()
    for c in range(3):
        for s in range(2):
            matrix = blur_matrix(x[0, s, c], size, size)  # convolution commutes: it blurs h with the image
            normal = normal + matrix.T @ matrix
            right = right + matrix.T @ y[0, c].flatten()
    actual = ext.hqs_kernel_update(kernel, ext.hqs_prepare(x, y, weight, size), project=False)
    torch.testing.assert_close(actual.flatten(), torch.linalg.solve(normal, right))


def test_padded_grid_depends_on_the_kernel_alone(problem):
    sides = set()
    for height, width in [(33, 33), (64, 50), (100, 41)]:
        _, _, y = problem(1, 1, (height, width, 33))
        factors = ext.hqs_prepare(y[:, None], y, torch.ones(1), 33)
        side = factors.filter.shape[-2]
        assert factors.filter.shape == (1, 1, side, side // 2 + 1)
        sides.add(side)
    assert sides == {72}  # the first even number from 65 on without a prime factor above 5


def test_a_kept_transform_of_the_measurement_gives_the_same(problem):
    _, _, y = problem(2, 3, (12, 13, 5))
    x = samples_like(y, 2)
    for plain, kept in zip(
        ext.hqs_prepare(x, y, torch.ones(2), 5),
        ext.hqs_prepare(x, y, torch.ones(2), 5, y_hat=torch.fft.rfft2(y)),
        strict=True,
    ):
        torch.testing.assert_close(plain, kept, rtol=0, atol=0)


def test_a_batch_gives_what_its_samples_give(problem):
    _, kernel, y = problem(3, 3, (30, 25, 12), torch.float32)
    x = samples_like(y, 2)
    weight = torch.tensor([1.0, 100.0, 1e4])
    whole = ext.hqs_kernel_update(kernel, ext.hqs_prepare(x, y, weight, 12))
    for b in range(3):
        one = slice(b, b + 1)
        factors = ext.hqs_prepare(x[one], y[one], weight[one], 12)
        torch.testing.assert_close(whole[one], ext.hqs_kernel_update(kernel[one], factors))


def test_single_precision_stays_close_over_the_iterations(problem):
    x, kernel, _ = problem(2, 3, (64, 64, 16))
    y = ext.blur(x, kernel)
    weight = torch.full((2,), 2e3, dtype=torch.float64)
    single = double = torch.full_like(kernel, 1 / 256)
    factors = ext.hqs_prepare(x[:, None], y, weight, 16)
    factors_single = ext.hqs_prepare(x[:, None].float(), y.float(), weight, 16)
    single = single.float()
    for _ in range(20):
        double, single = ext.hqs_kernel_update(double, factors), ext.hqs_kernel_update(single, factors_single)
    # Measured: 6e-7 of the kernel's peak.
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5 * float(double.max()))
    torch.testing.assert_close(double, kernel, rtol=0, atol=0.05 * float(kernel.max()))


def test_bad_arguments_are_named(problem):
    _, kernel, y = problem(2, 3, (12, 13, 5))
    x, weight = samples_like(y, 2), torch.ones(2)
    with pytest.raises(ValueError, match="x must have 5 dimensions"):
        ext.hqs_prepare(y, y, weight, 5)
    with pytest.raises(ValueError, match=r"x must have shape \(2, 2, 3, 12, 13\)"):
        ext.hqs_prepare(x[..., :-1], y, weight, 5)
    with pytest.raises(ValueError, match="at least one sample"):
        ext.hqs_prepare(x[:, :0], y, weight, 5)
    with pytest.raises(ValueError, match=r"weight must have shape \(2,\)"):
        ext.hqs_prepare(x, y, weight[:1], 5)
    with pytest.raises(ValueError, match="K is 13, the image 12 x 13"):
        ext.hqs_prepare(x, y, weight, 13)
    factors = ext.hqs_prepare(x, y, weight, 5)
    with pytest.raises(ValueError, match=r"kernel must have shape \(2, 1, 5, 5\)"):
        ext.hqs_kernel_update(kernel[..., :4, :4], factors)
    with pytest.raises(TypeError, match="kernel must be of dtype float64"):
        ext.hqs_kernel_update(kernel.float(), factors)
    with pytest.raises(ValueError, match="too few for K = 5"):
        ext.hqs_kernel_update(kernel, ext.HQSFactors(factors.data_term, factors.filter[..., :8, :5]))
    with pytest.raises(ValueError, match=r"kernel must have shape \(B, 1, K, K\)"):
        ext.project_kernel(torch.zeros(1, 3, 5, 5))
    with pytest.raises(TypeError, match="factors must be what hqs_prepare returns, not tuple"):
        ext.hqs_kernel_update(kernel, tuple(factors))
    with pytest.raises(ValueError, match="iterations must be at least 1, not 0"):
        ext.hqs_kernel_update(kernel, factors, iterations=0)
    with pytest.raises(ValueError, match="iterations must be at most 1000, not 1001"):
        ext.hqs_kernel_update(kernel, factors, iterations=1001)
    with pytest.raises(TypeError, match="kernel_size must be an integer, not float"):
        ext.hqs_prepare(x, y, weight, 5.0)
    with pytest.raises(TypeError, match="per_channel must be True or False, not 2"):
        ext.hqs_prepare(x, y, weight, 5, per_channel=2)
    with pytest.raises(
        ValueError, match="kernel requires a gradient, which hqs_kernel_update does not compute"
    ):
        ext.hqs_kernel_update(kernel.clone().requires_grad_(), factors)
    with pytest.raises(ValueError, match="x requires a gradient, which hqs_prepare does not compute"):
        ext.hqs_prepare(x.clone().requires_grad_(), y, weight, 5)


@pytest.mark.parametrize("operation", [ext.hqs_prepare, ext.hqs_kernel_update])
def test_arguments_of_every_kind_are_taken_or_refused_by_name(operation):
    def valid(batch: int) -> dict[str, Any]:
        kernel, data_term = torch.rand(2, batch, 1, 3, 3)
        if operation is ext.hqs_kernel_update:
            factors = ext.HQSFactors(data_term, torch.rand(batch, 1, 6, 4))
            return {"kernel": kernel, "factors": factors, "project": True, "iterations": 2}
        images = {"x": torch.rand(batch, 2, 2, 6, 5), "y": torch.rand(batch, 2, 6, 5)}
        settings = {"kernel_size": 3, "per_channel": False, "y_hat": None}
        return images | {"weight": torch.rand(batch) + 0.05} | settings

    fuzz(operation, valid)
