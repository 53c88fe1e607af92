from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext

# (H, W, K): the lattice of the kernel (at least 2K - 1 points) is smaller than the image, larger, and mixed.
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
    found = ext.hqs_kernel_update(kernel, ext.hqs_prepare(x, y, weight, size), project=False)
    torch.testing.assert_close(found.flatten(), torch.linalg.solve(normal, right))


def test_lattice_depends_on_the_kernel_alone(problem):
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


def test_projection_clips_and_normalises():
    kernel = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]]], [[[0.0, -1.0], [-1.0, 0.0]]]])
    expected = torch.tensor([[[[0.25, 0.0], [0.75, 0.0]]], [[[0.25, 0.25], [0.25, 0.25]]]])
    torch.testing.assert_close(ext.project_kernel(kernel), expected)


def test_projection_of_one_kernel_ignores_the_others():
    kernels = torch.randn(3, 1, 6, 6)
    for b in range(3):
        torch.testing.assert_close(ext.project_kernel(kernels)[b], ext.project_kernel(kernels[b : b + 1])[0])


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
