from __future__ import annotations

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import reference

from .rows import DEVICE

# PyTorch is what runs on a GPU.
BACKENDS = ["reference", "cpp"] if DEVICE.type == "cpu" else ["reference"]
SIZE = 27


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", [288, 480])
def test_l0_deconvolution(measure, side, backend):
    """Six hypotheses of one photograph at one scale of the gradient-based start."""
    x = torch.rand(6, 1, side // 8, side // 8, device=DEVICE).repeat_interleave(8, 2).repeat_interleave(8, 3)
    kernel = ext.project_kernel(torch.rand(6, 1, SIZE, SIZE, device=DEVICE) - 0.9)
    y, penalty = reference.blur(x, kernel), torch.full((6,), 4e-3, device=DEVICE)
    arguments = y, kernel, penalty, 8 * penalty, torch.full_like(penalty, 2), torch.full_like(penalty, 20)
    expected = reference.l0_deconvolution(*(value.double() for value in arguments))

    def run() -> torch.Tensor:
        return ext.l0_deconvolution(*arguments)

    measure("l0_deconvolution", backend, f"6 x 1 x {side} x {side}, K = {SIZE}", run, expected, 1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", [288, 480])
def test_gradient_lags(measure, side, backend):
    """The normal equations of six kernels at one scale of the gradient-based start."""
    x, y = torch.rand(2, 6, 1, side, side, device=DEVICE)
    arguments = x, torch.fft.rfft2(y), torch.ones_like(x), torch.full((6,), 0.3, device=DEVICE)
    double = (value.to(torch.complex128 if value.is_complex() else torch.float64) for value in arguments)
    expected = reference.gradient_lags(*double, SIZE)

    def run() -> tuple[torch.Tensor, ...]:
        return ext.gradient_lags(*arguments, SIZE)

    measure("gradient_lags", backend, f"6 x 1 x {side} x {side}, K = {SIZE}", run, expected, 1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [27, 75])
def test_kernel_from_lags(measure, size, backend):
    """Twenty iterations for six kernels at one scale of the gradient-based start."""
    x = torch.rand(6, 1, 36, 36, device=DEVICE).repeat_interleave(8, 2).repeat_interleave(8, 3)
    y_hat = torch.fft.rfft2(ext.blur(x, ext.project_kernel(torch.rand(6, 1, size, size, device=DEVICE) - 0.9)))
    whitening = torch.full((6,), 0.3, device=DEVICE)
    lags, cross = ext.gradient_lags(x, y_hat, torch.ones_like(x), whitening, size)
    start = torch.full_like(cross, 1 / size**2)
    arguments = lags, cross, 0.03 * lags[:, 0, size - 1, size - 1], start
    expected = reference.kernel_from_lags(*(value.double() for value in arguments), True, 0.0, 20)

    def run() -> torch.Tensor:
        return ext.kernel_from_lags(*arguments, tolerance=0.0, iterations=20)

    measure("kernel_from_lags", backend, f"6 x 1 x {size} x {size}", run, expected, 1e-2)
