from __future__ import annotations

import pytest
import torch

import latentdem_ext as ext

SHAPES = [(7, 9, 3), (8, 8, 4), (9, 6, 5), (6, 7, 6)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (3, 3)])
def test_fidelity_is_what_the_matrix_says(problem, blur_matrix, shape, batch, channels):
    height, width, _ = shape
    x, kernel, y = problem(batch, channels, shape)
    found = ext.blur_fidelity(x, kernel, y)
    assert found.norm2.shape == (batch,)
    for b in range(batch):
        matrix = blur_matrix(kernel[b, 0], height, width)
        image, measured = x[b].flatten(1), y[b].flatten(1)
        residual = measured - image @ matrix.T
        torch.testing.assert_close(found.norm2[b], residual.square().sum())
        torch.testing.assert_close(found.gradient[b].flatten(1), -2 * residual @ matrix)
        glued = measured @ matrix + image - image @ matrix.T @ matrix  # A^T y + (I - A^T A) x
        torch.testing.assert_close(found.glued[b].flatten(1), glued)


@pytest.mark.parametrize("shape", [(40, 33, 16), (33, 40, 17)])
def test_gradient_is_that_of_the_norm(problem, shape):
    x, kernel, y = problem(2, 3, shape)
    x.requires_grad_()
    (expected,) = torch.autograd.grad((y - ext.blur(x, kernel)).square().sum(), x)
    found = ext.blur_fidelity(x, kernel, y)
    torch.testing.assert_close(found.gradient, expected)
    (through_norm2,) = torch.autograd.grad(found.norm2.sum(), x)
    torch.testing.assert_close(through_norm2, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (3, 3)])
def test_proximal_step_solves_the_normal_equations(problem, blur_matrix, shape, batch, channels):
    height, width, _ = shape
    x0, kernel, y = problem(batch, channels, shape)
    rho = torch.tensor([0.5, 1e-3, 20.0], dtype=torch.float64)[:batch]
    found = ext.blur_proximal(x0, kernel, y, rho)
    for b in range(batch):
        matrix = blur_matrix(kernel[b, 0], height, width)
        normal = matrix.T @ matrix + rho[b] * torch.eye(height * width, dtype=torch.float64)
        right = matrix.T @ y[b].flatten(1).T + rho[b] * x0[b].flatten(1).T
        torch.testing.assert_close(found[b].flatten(1).T, torch.linalg.solve(normal, right))


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


def test_single_precision_is_close_to_double(problem):
    x, kernel, y = problem(2, 3, (64, 50, 21))
    rho = torch.full((2,), 0.01)
    double = (*ext.blur_fidelity(x, kernel, y), ext.blur_proximal(x, kernel, y, rho))
    x, kernel, y = x.float(), kernel.float(), y.float()
    for single, expected in zip(
        (*ext.blur_fidelity(x, kernel, y), ext.blur_proximal(x, kernel, y, rho)), double, strict=True
    ):
        assert single.dtype == torch.float32
        torch.testing.assert_close(
            single.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
        )


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
