from __future__ import annotations

import pytest
import torch

import latentdem_ext as ext

# (H, W, K): odd, even, non-square; odd and even kernels, beyond half of the image and as large as it.
SHAPES = [(7, 9, 3), (8, 8, 4), (9, 6, 5), (6, 7, 6), (5, 5, 5), (8, 11, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (3, 3)])
def test_blur_and_adjoint_are_the_matrix_and_its_transpose(problem, blur_matrix, shape, batch, channels):
    height, width, _ = shape
    x, kernel, y = problem(batch, channels, shape)
    blurred, adjoint = ext.blur(x, kernel), ext.blur_adjoint(y, kernel)
    for b in range(batch):
        matrix = blur_matrix(kernel[b, 0], height, width)
        torch.testing.assert_close(blurred[b].flatten(1), x[b].flatten(1) @ matrix.T)
        torch.testing.assert_close(adjoint[b].flatten(1), y[b].flatten(1) @ matrix)


@pytest.mark.parametrize("shape", [(40, 33, 16), (33, 40, 17)])
def test_blur_is_a_sum_of_shifted_images(problem, shape):
    x, kernel, _ = problem(2, 3, shape)
    size = kernel.shape[-1]
    expected = torch.zeros_like(x)
    for a in range(size):
        for b in range(size):
            expected += kernel[..., a : a + 1, b : b + 1] * x.roll(
                (a - size // 2, b - size // 2), dims=(-2, -1)
            )
    torch.testing.assert_close(ext.blur(x, kernel), expected)


@pytest.mark.parametrize("size", [3, 4])
def test_a_delta_at_the_origin_changes_nothing(problem, size):
    x, kernel, _ = problem(1, 3, (10, 13, size))
    kernel.zero_()[..., size // 2, size // 2] = 1
    torch.testing.assert_close(ext.blur(x, kernel), x)


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_transfer_function_is_the_dft_of_the_moved_kernel(height, width, size):
    kernel = torch.rand(2, 1, size, size, dtype=torch.float64)
    moved = torch.zeros(2, 1, height, width, dtype=torch.float64)
    for a in range(size):
        for b in range(size):
            moved[..., (a - size // 2) % height, (b - size // 2) % width] = kernel[..., a, b]
    expected = torch.fft.fft2(moved)[..., : width // 2 + 1]
    torch.testing.assert_close(ext.kernel_to_otf(kernel, (height, width)), expected)


def test_autograd_of_the_blur_is_the_adjoint(problem):
    x, kernel, y = problem(2, 3, (8, 9, 4))
    x.requires_grad_()
    (ext.blur(x, kernel) * y).sum().backward()
    torch.testing.assert_close(x.grad, ext.blur_adjoint(y, kernel))


def test_an_empty_batch_stays_empty():
    x, kernel = torch.zeros(0, 3, 8, 9), torch.zeros(0, 1, 3, 3)
    assert ext.blur(x, kernel).shape == x.shape


@pytest.mark.parametrize(
    ("x", "kernel", "error", "message"),
    [
        (torch.zeros(1, 1, 8, 6), torch.zeros(1, 1, 7, 7), ValueError, "K is 7, the image 8 x 6"),
        (
            torch.zeros(2, 1, 8, 8),
            torch.zeros(1, 1, 3, 3),
            ValueError,
            r"kernel must have shape \(2, 1, 3, 3\)",
        ),
        (
            torch.zeros(1, 1, 8, 8),
            torch.zeros(1, 1, 3, 4),
            ValueError,
            r"kernel must have shape \(B, 1, K, K\)",
        ),
        (
            torch.zeros(1, 1, 8, 8),
            torch.zeros(1, 3, 3, 3),
            ValueError,
            r"kernel must have shape \(B, 1, K, K\)",
        ),
        (torch.zeros(1, 8, 8), torch.zeros(1, 1, 3, 3), ValueError, "x must have 4 dimensions"),
        (
            torch.zeros(1, 1, 8, 8).half(),
            torch.zeros(1, 1, 3, 3),
            TypeError,
            "x must be of dtype float32 or fl",
        ),
        (
            torch.zeros(1, 1, 8, 8),
            torch.zeros(1, 1, 3, 3).double(),
            TypeError,
            "kernel must be of dtype float32",
        ),
        (
            torch.zeros(1, 1, 8, 8),
            torch.zeros(1, 1, 3, 3, device="meta"),
            ValueError,
            "kernel is on meta, but x is",
        ),
        (torch.zeros(1, 1, 8, 8), [[1.0]], TypeError, "kernel must be a tensor, not list"),
        (torch.zeros(1, 1, 8, 8).to_sparse(), torch.zeros(1, 1, 3, 3), TypeError, "x must be a dense tensor"),
    ],
)
def test_bad_arguments_are_named(x, kernel, error, message):
    with pytest.raises(error, match=message):
        ext.blur(x, kernel)


def test_transfer_function_refuses_a_kernel_larger_than_the_lattice():
    with pytest.raises(ValueError, match="K is 9, the image 8 x 16"):
        ext.kernel_to_otf(torch.zeros(1, 1, 9, 9), (8, 16))
