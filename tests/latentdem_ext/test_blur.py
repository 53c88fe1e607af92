from __future__ import annotations

from typing import Any

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import reference

from .fuzzing import fuzz

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


# Half widths around whole blocks of 16, odd and non-square images, K up to the smaller side; numbers of rows
# that the native module transforms: without a prime factor above 13.
SINGLE_SHAPES = [(16, 16, 3), (21, 23, 8), (33, 40, 33), (1, 2, 1), (2, 1, 1), (64, 300, 64), (130, 149, 129)]


@pytest.mark.usefixtures("poisoned", "backend")
@pytest.mark.parametrize("shape", SINGLE_SHAPES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (7, 3), (2, 4)])
def test_single_precision_is_close_to_double(problem, assert_close_per_sample, shape, batch, channels):
    x, kernel, _ = problem(batch, channels, shape)
    # Measured: 3.3e-7.
    assert_close_per_sample(ext.blur(x.float(), kernel.float()), reference.blur(x, kernel), 1e-6)
    actual = ext.blur_adjoint(x.float(), kernel.float())
    assert_close_per_sample(actual, reference.blur_adjoint(x, kernel), 1e-6)


@pytest.mark.usefixtures("backend")
def test_single_precision_on_a_large_image(problem, assert_close_per_sample):
    x, kernel, _ = problem(1, 3, (600, 471, 65))
    assert_close_per_sample(ext.blur(x.float(), kernel.float()), reference.blur(x, kernel), 1e-6)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("value", [0.0, 1e4])
def test_extreme_values(problem, assert_close_per_sample, value):
    x, kernel, _ = problem(2, 3, (20, 24, 7))
    x = torch.full_like(x, value) if value == 0 else x * value
    assert_close_per_sample(ext.blur(x.float(), kernel.float()), reference.blur(x, kernel), 1e-6)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("operation", [ext.blur, ext.blur_adjoint])
def test_layout_of_the_arguments_does_not_matter(problem, operation):
    x, kernel, _ = problem(2, 3, (10, 12, 4), torch.float32)
    expected = operation(x, kernel)
    for strided in (
        x.to(memory_format=torch.channels_last),
        x.mT.contiguous().mT,
        torch.stack([x, x], dim=-1)[..., 1],
        torch.complex(torch.zeros_like(x), -x).conj().imag,  # negated only when it is read
    ):
        actual = operation(strided, kernel.mT.contiguous().mT)
        assert actual.is_contiguous()
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    expanded = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(operation(expanded, kernel), operation(expanded.contiguous(), kernel))


@pytest.mark.usefixtures("backend")
def test_result_does_not_depend_on_the_number_of_threads(problem, on_every_number_of_threads):
    x, kernel, _ = problem(2, 3, (150, 170, 20), torch.float32)
    first, *others = on_every_number_of_threads(lambda: (ext.blur(x, kernel),))
    for other in others:
        assert torch.equal(other[0], first[0])


@pytest.mark.parametrize("operation", [ext.blur, ext.blur_adjoint])
def test_gradients(problem, operation):
    x, kernel, _ = problem(2, 2, (5, 4, 3))
    arguments = (x.requires_grad_(), kernel.requires_grad_())
    assert torch.autograd.gradcheck(operation, arguments)
    assert torch.autograd.gradgradcheck(operation, arguments)


def test_gradients_in_single_precision(problem, assert_close_per_sample):
    arguments = problem(2, 3, (20, 17, 6))[:2]
    single = [argument.float().requires_grad_() for argument in arguments]
    double = [argument.requires_grad_() for argument in arguments]
    towards = torch.randn(2, 3, 20, 17, dtype=torch.float64)
    for actual, expected in zip(
        torch.autograd.grad(ext.blur(*single), single, towards.float()),
        torch.autograd.grad(reference.blur(*double), double, towards),
        strict=True,
    ):
        assert_close_per_sample(actual.contiguous(), expected, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("operation", ["blur", "blur_adjoint"])
def test_registration(problem, operation, dtype):
    x, kernel, _ = problem(2, 3, (8, 9, 4), dtype)
    torch.library.opcheck(
        getattr(torch.ops.latentdem, operation).default, (x.requires_grad_(), kernel.requires_grad_())
    )


def _through_everything(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    blurred = ext.blur_adjoint(ext.blur(2 * x, kernel), ext.project_kernel(kernel))
    return blurred.square().sum() + ext.kernel_to_otf(kernel, (8, 9)).abs().sum()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(problem, compiler, dtype, dynamic):
    x, kernel, _ = problem(2, 3, (8, 9, 4), dtype)
    arguments = (x.requires_grad_(), kernel.requires_grad_())
    compiled = torch.compile(_through_everything, fullgraph=True, backend=compiler, dynamic=dynamic)
    actual, expected = compiled(*arguments), _through_everything(*arguments)
    torch.testing.assert_close(actual, expected)
    for gradient, other in zip(
        torch.autograd.grad(actual, arguments), torch.autograd.grad(expected, arguments), strict=True
    ):
        torch.testing.assert_close(gradient, other)


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


def test_transfer_function_refuses_a_kernel_larger_than_the_image():
    with pytest.raises(ValueError, match="K is 9, the image 8 x 16"):
        ext.kernel_to_otf(torch.zeros(1, 1, 9, 9), (8, 16))


@pytest.mark.parametrize("shape", [8, (8, 8, 8), (8.0, 8), None, "ab"])
def test_transfer_function_refuses_what_is_not_a_pair(shape):
    with pytest.raises(TypeError, match="shape must be"):
        ext.kernel_to_otf(torch.zeros(1, 1, 3, 3), shape)


def test_freed_memory_is_not_read():
    x, kernel = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 3)
    x.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="x refers to memory that has been freed"):
        ext.blur(x, kernel)


@pytest.mark.parametrize("operation", [ext.blur, ext.blur_adjoint, ext.kernel_to_otf])
def test_arguments_of_every_kind_are_taken_or_refused_by_name(operation):
    def valid(batch: int) -> dict[str, Any]:
        image, kernel = torch.rand(batch, 2, 6, 5), torch.rand(batch, 1, 3, 3)
        if operation is ext.kernel_to_otf:
            return {"kernel": kernel, "shape": (6, 5)}
        return {"x" if operation is ext.blur else "y": image, "kernel": kernel}

    fuzz(operation, valid)
