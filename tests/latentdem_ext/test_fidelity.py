from __future__ import annotations

from typing import Any

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import reference

from .fuzzing import fuzz

SHAPES = [(7, 9, 3), (8, 8, 4), (9, 6, 5), (6, 7, 6)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (3, 3)])
def test_fidelity_is_what_the_matrix_says(problem, blur_matrix, shape, batch, channels):
    height, width, _ = shape
    x, kernel, y = problem(batch, channels, shape)
    actual = ext.blur_fidelity(x, kernel, y)
    assert actual.norm2.shape == (batch,)
    for b in range(batch):
        matrix = blur_matrix(kernel[b, 0], height, width)
        image, measured = x[b].flatten(1), y[b].flatten(1)
        residual = measured - image @ matrix.T
        torch.testing.assert_close(actual.norm2[b], residual.square().sum())
        torch.testing.assert_close(actual.gradient[b].flatten(1), -2 * residual @ matrix)
        glued = measured @ matrix + image - image @ matrix.T @ matrix  # A^T y + (I - A^T A) x
        torch.testing.assert_close(actual.glued[b].flatten(1), glued)


@pytest.mark.parametrize("shape", [(40, 33, 16), (33, 40, 17)])
def test_gradient_is_that_of_the_norm(problem, shape):
    x, kernel, y = problem(2, 3, shape)
    x.requires_grad_()
    (expected,) = torch.autograd.grad((y - ext.blur(x, kernel)).square().sum(), x)
    actual = ext.blur_fidelity(x, kernel, y)
    torch.testing.assert_close(actual.gradient, expected)
    (through_norm2,) = torch.autograd.grad(actual.norm2.sum(), x)
    torch.testing.assert_close(through_norm2, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (3, 3)])
def test_proximal_step_solves_the_normal_equations(problem, blur_matrix, shape, batch, channels):
    height, width, _ = shape
    x0, kernel, y = problem(batch, channels, shape)
    rho = torch.tensor([0.5, 1e-3, 20.0], dtype=torch.float64)[:batch]
    actual = ext.blur_proximal(x0, kernel, y, rho)
    for b in range(batch):
        matrix = blur_matrix(kernel[b, 0], height, width)
        normal = matrix.T @ matrix + rho[b] * torch.eye(height * width, dtype=torch.float64)
        right = matrix.T @ y[b].flatten(1).T + rho[b] * x0[b].flatten(1).T
        torch.testing.assert_close(actual[b].flatten(1).T, torch.linalg.solve(normal, right))


def test_a_kept_transform_of_the_measurement_gives_the_same(problem):
    x, kernel, y = problem(3, 3, (9, 10, 4))
    rho = torch.rand(3)
    y_hat = torch.fft.rfft2(y)
    for with_y, with_y_hat in zip(
        (*ext.blur_fidelity(x, kernel, y), ext.blur_proximal(x, kernel, y, rho)),
        (*ext.blur_fidelity(x, kernel, y, y_hat=y_hat), ext.blur_proximal(x, kernel, y, rho, y_hat=y_hat)),
        strict=True,
    ):
        torch.testing.assert_close(with_y, with_y_hat, rtol=0, atol=0)


def test_a_batch_gives_what_its_samples_give(problem):
    x, kernel, y = problem(3, 3, (12, 15, 6), torch.float32)
    rho = torch.tensor([0.1, 1.0, 10.0])
    whole = (*ext.blur_fidelity(x, kernel, y), ext.blur_proximal(x, kernel, y, rho))
    for b in range(3):
        one = slice(b, b + 1)
        alone = (
            *ext.blur_fidelity(x[one], kernel[one], y[one]),
            ext.blur_proximal(x[one], kernel[one], y[one], rho[one]),
        )
        for all_samples, sample in zip(whole, alone, strict=True):
            torch.testing.assert_close(all_samples[one], sample)


def everything(x, kernel, y, rho, y_hat=None):
    return (
        *ext.blur_fidelity(x, kernel, y, y_hat=y_hat),
        ext.blur_proximal(x, kernel, y, rho, y_hat=y_hat),
    )


def everything_by_definition(x, kernel, y, rho):
    return *reference.blur_fidelity(x, kernel, y), reference.blur_proximal(x, kernel, y, rho)


# Widths on both sides of a block of 16 columns of the half spectrum, even and odd; K up to the image's side.
SINGLE_SHAPES = [(16, 16, 3), (21, 30, 8), (33, 31, 31), (1, 2, 1), (2, 1, 1), (64, 300, 64), (130, 149, 129)]


@pytest.mark.usefixtures("poisoned", "backend")
@pytest.mark.parametrize("shape", SINGLE_SHAPES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (7, 3), (2, 4)])
def test_single_precision_is_close_to_double(problem, assert_close_per_sample, shape, batch, channels):
    double = (*problem(batch, channels, shape), torch.rand(batch, dtype=torch.float64) + 0.01)
    single = [argument.float() for argument in double]
    expected = everything_by_definition(*double)
    for y_hat in (None, torch.fft.rfft2(single[2])):
        for actual, exact in zip(everything(*single, y_hat), expected, strict=True):
            assert actual.dtype == torch.float32
            # Measured: 4.2e-7.
            assert_close_per_sample(actual, exact, 2e-6)


@pytest.mark.usefixtures("backend")
def test_single_precision_on_a_large_image(problem, assert_close_per_sample):
    double = (*problem(1, 3, (594, 600, 64)), torch.tensor([1e-3], dtype=torch.float64))
    actual = everything(*(argument.float() for argument in double))
    for one, exact in zip(actual, everything_by_definition(*double), strict=True):
        assert_close_per_sample(one, exact, 1e-5)


@pytest.mark.usefixtures("poisoned", "backend")
def test_extreme_values(problem, assert_close_per_sample):
    x, kernel, y = problem(2, 3, (20, 24, 7), torch.float32)
    rho = torch.tensor([0.5, 2.0])
    zero = torch.zeros_like(x)
    for actual in everything(zero, kernel, zero, rho):
        assert (actual == 0).all()
    double = [argument.double() for argument in (1e4 * x, kernel, 1e4 * y, rho)]
    for actual, exact in zip(
        everything(1e4 * x, kernel, 1e4 * y, rho), everything_by_definition(*double), strict=True
    ):
        assert_close_per_sample(actual, exact, 2e-6)


@pytest.mark.usefixtures("backend")
def test_proximal_step_where_the_transfer_function_vanishes(problem, assert_close_per_sample):
    """A wide flat kernel, |F k| down to rounding error, and next to no weight on x0."""
    x, kernel, y = problem(2, 3, (32, 32, 16))
    kernel = torch.full_like(kernel, 1 / 256)
    rho = torch.tensor([1e-6, 1e-3], dtype=torch.float64)
    expected = reference.blur_proximal(x, kernel, y, rho)
    single = [argument.float() for argument in (x, kernel, y, rho)]
    actual, plain = ext.blur_proximal(*single).double(), reference.blur_proximal(*single).double()
    for b in range(2):
        error, error_of_pytorch = (float((one[b] - expected[b]).norm()) for one in (actual, plain))
        assert error <= 2 * error_of_pytorch


@pytest.mark.usefixtures("backend")
def test_layout_of_the_arguments_does_not_matter(problem):
    x, kernel, y = problem(2, 3, (10, 12, 4), torch.float32)
    rho = torch.rand(2)
    expected = everything(x, kernel, y, rho)
    y_hat = torch.fft.rfft2(y).conj().resolve_conj().conj()  # conjugated only when it is read
    for strided in (
        (x.to(memory_format=torch.channels_last), kernel.mT.contiguous().mT, y, rho.double()),
        (x, kernel, y.mT.contiguous().mT, rho.repeat_interleave(2)[::2]),
        (x, kernel, y, rho, y_hat),
        (x, kernel, y, rho, y_hat.mT.contiguous().mT),
    ):
        for actual, contiguous in zip(everything(*strided), expected, strict=True):
            assert actual.is_contiguous()
            torch.testing.assert_close(actual, contiguous, rtol=1e-6, atol=1e-5)


@pytest.mark.usefixtures("backend")
def test_results_do_not_depend_on_the_number_of_threads(problem, on_every_number_of_threads):
    arguments = (*problem(2, 3, (150, 170, 20), torch.float32), torch.rand(2))
    first, *others = on_every_number_of_threads(lambda: everything(*arguments))
    for other in others:
        for one, same in zip(other, first, strict=True):
            assert torch.equal(one, same)


@pytest.mark.usefixtures("backend")
def test_an_empty_batch_stays_empty(problem):
    x, kernel, y = problem(0, 3, (8, 9, 3), torch.float32)
    norm2, gradient, glued = ext.blur_fidelity(x, kernel, y)
    assert norm2.shape == (0,)
    assert gradient.shape == glued.shape == ext.blur_proximal(x, kernel, y, torch.ones(0)).shape == x.shape


@pytest.mark.parametrize("outputs", [(0,), (1,), (2,), (0, 1, 2)])
def test_gradients_of_the_fidelity(problem, outputs):
    arguments = [argument.requires_grad_() for argument in problem(2, 2, (5, 4, 3))]

    def fidelity(*values):
        actual = ext.blur_fidelity(*values)
        return tuple(actual[i] for i in outputs)

    assert torch.autograd.gradcheck(fidelity, arguments)


def test_second_derivatives_of_the_norm(problem):
    arguments = [argument.requires_grad_() for argument in problem(1, 1, (4, 5, 2))]
    assert torch.autograd.gradgradcheck(lambda *values: ext.blur_fidelity(*values).norm2, arguments)


def test_gradient_of_the_norm_comes_with_it(problem, monkeypatch):
    """Nothing is transformed on the way back from the norm to x."""
    x, kernel, y = problem(2, 3, (8, 9, 4))
    actual = ext.blur_fidelity(x.requires_grad_(), kernel, y)
    for name in ("blur", "blur_adjoint"):
        monkeypatch.setattr(f"latentdem_ext._fidelity.{name}", None)
    (gradient,) = torch.autograd.grad(actual.norm2.sum(), x)
    torch.testing.assert_close(gradient, actual.gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_registration(problem, dtype):
    x, kernel, y = problem(2, 3, (8, 9, 4), dtype)
    rho, y_hat = torch.rand(2), torch.fft.rfft2(y)
    torch.library.opcheck(torch.ops.latentdem.blur_proximal.default, (x, kernel, y, rho, y_hat))
    torch.library.opcheck(torch.ops.latentdem.blur_proximal.default, (x, kernel, y, rho, None))
    for argument in (x, kernel, y):
        argument.requires_grad_()
    torch.library.opcheck(torch.ops.latentdem.blur_fidelity.default, (x, kernel, y, None))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(problem, compiler, dtype, dynamic):
    x, kernel, y = problem(2, 3, (8, 9, 4), dtype)
    rho, y_hat = torch.rand(2), torch.fft.rfft2(y)

    def step(x):
        actual = ext.blur_fidelity(2 * x, kernel, y, y_hat=y_hat)
        moved = ext.blur_proximal(actual.glued.detach(), kernel, y, rho, y_hat=y_hat)
        return actual.norm2.sum() + moved.sum()

    compiled = torch.compile(step, fullgraph=True, backend=compiler, dynamic=dynamic)
    actual, expected = compiled(x.requires_grad_()), step(x)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, x)[0] for value in (actual, expected)))


def test_bad_arguments_are_named(problem):
    x, kernel, y = problem(2, 3, (9, 10, 4))
    with pytest.raises(ValueError, match=r"y must have shape \(2, 3, 9, 10\) to go with x"):
        ext.blur_fidelity(x, kernel, y[:, :1])
    with pytest.raises(ValueError, match=r"y_hat must have shape \(2, 3, 9, 6\)"):
        ext.blur_fidelity(x, kernel, y, y_hat=torch.fft.fft2(y))
    with pytest.raises(TypeError, match="y_hat must be of dtype complex128, not complex64"):
        ext.blur_fidelity(x, kernel, y, y_hat=torch.fft.rfft2(y.float()))
    with pytest.raises(ValueError, match="rho must have 1 dimension, "):
        ext.blur_proximal(x, kernel, y, torch.tensor([[1.0], [1.0]]))
    with pytest.raises(TypeError, match="rho must be a tensor, not float"):
        ext.blur_proximal(x, kernel, y, 0.5)
    with pytest.raises(ValueError, match="rho requires a gradient, which blur_proximal does not compute"):
        ext.blur_proximal(x, kernel, y, torch.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match="y_hat requires a gradient, which blur_fidelity does not compute"):
        ext.blur_fidelity(x, kernel, y, y_hat=torch.fft.rfft2(y).requires_grad_())
    with torch.no_grad():
        ext.blur_proximal(x, kernel, y, torch.ones(2, requires_grad=True))


@pytest.mark.parametrize("operation", [ext.blur_fidelity, ext.blur_proximal])
def test_arguments_of_every_kind_are_taken_or_refused_by_name(operation):
    def valid(batch: int) -> dict[str, Any]:
        x, y = torch.rand(2, batch, 2, 6, 5)
        shared = {"kernel": torch.rand(batch, 1, 3, 3), "y": y}
        if operation is ext.blur_proximal:
            return {"x0": x, **shared, "rho": torch.rand(batch) + 0.05, "y_hat": None}
        return {"x": x, **shared, "y_hat": torch.fft.rfft2(torch.rand(batch + 1, 2, 6, 5))[1:]}

    fuzz(operation, valid)
