from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem_ext import reference

from .baselines import public_m_step
from .rows import BACKENDS, COMPILED, DEVICE, NATIVE, compiled

ITERATIONS = 20
ON_GPU = pytest.mark.skipif(DEVICE.type == "cpu", reason="one launch on CUDA only")
IMAGES = [(1, 256), (8, 256), (1, 512), pytest.param((8, 512), marks=pytest.mark.slow)]


def problem(batch: int, side: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image and measurement (B, 3, H, W), a kernel to start from, the weight of the splitting."""
    x = torch.rand(batch, 3, side, side, device=DEVICE) * 2 - 1
    true, start = torch.rand(2, batch, 1, size, size, device=DEVICE)
    y = ext.blur(x, ext.project_kernel(true)) + 0.02 * torch.randn_like(x)
    return x, y, ext.project_kernel(start), torch.full((batch,), 2e3, device=DEVICE)


@pytest.mark.parametrize("backend", ["public form", *BACKENDS])
@pytest.mark.parametrize("images", IMAGES)
def test_m_step(measure, images, backend):
    """The whole M-step without a denoiser, channel by channel as in public code."""
    (batch, side), size = images, 64
    x, y, kernel, weight = problem(batch, side, size)

    def step() -> Tensor:
        if backend == "public form":
            return public_m_step(x, y, kernel, weight, ITERATIONS)
        if backend == COMPILED:
            factors = compiled("hqs_prepare")(x[:, None], y, weight, size, True)
            updated = kernel
            for _ in range(ITERATIONS):
                updated = compiled("hqs_kernel_update")(updated, factors)
            return updated
        factors = ext.hqs_prepare(x[:, None], y, weight, size, per_channel=True)
        return ext.hqs_kernel_update(kernel, factors, iterations=ITERATIONS)

    exact = reference.hqs_prepare(x[:, None].double(), y.double(), weight.double(), size, True)
    expected = reference.hqs_kernel_update(kernel.double(), exact, True, ITERATIONS)
    measure("M-step, 20 iterations, K = 64", backend, f"{batch} x 3 x {side} x {side}", step, expected, 1e-4)


@pytest.mark.parametrize("backend", ["reference", NATIVE])
@pytest.mark.parametrize("one_launch", [False, pytest.param(True, marks=ON_GPU)])
@pytest.mark.parametrize("batch", [1, 8])
def test_m_step_with_denoiser(measure, batch, one_launch, backend):
    """Update, denoiser and projection in turn, or as the operation that is one launch on CUDA."""
    x, y, kernel, weight = problem(batch, 256, 64)
    denoiser, level = load_kernel_denoiser(device=DEVICE), torch.full((batch,), 0.05, device=DEVICE)

    def step() -> Tensor:
        factors = ext.hqs_prepare(x[:, None], y, weight, 64)
        if one_launch:
            return ext.hqs_m_step(kernel, factors, *denoiser.layers(), level, iterations=ITERATIONS)
        updated = kernel
        for _ in range(ITERATIONS):
            updated = ext.hqs_kernel_update(updated, factors)
            updated = ext.project_kernel(denoiser.denoise(updated, 0.05))
        return updated

    with ext.use_backend("reference"), torch.no_grad():
        expected = step()
    shape, how = f"{batch} x 3 x 256 x 256", ", hqs_m_step" if one_launch else ""
    measure(f"M-step with denoiser, 20 iterations, K = 64{how}", backend, shape, step, expected, 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("images", IMAGES)
def test_hqs_prepare(measure, images, backend):
    batch, side = images
    x, y, _, weight = problem(batch, side, 64)
    y_hat = torch.fft.rfft2(y)

    def prepare() -> tuple[Tensor, ...]:
        if backend == COMPILED:
            return tuple(compiled("hqs_prepare")(x[:, None], y, weight, 64, False, y_hat))
        return tuple(ext.hqs_prepare(x[:, None], y, weight, 64, y_hat=y_hat))

    expected = reference.hqs_prepare(x[:, None].double(), y.double(), weight.double(), 64)
    measure("hqs_prepare, y_hat kept", backend, f"{batch} x 3 x {side} x {side}, K = 64", prepare, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [16, 33, 64, 129])
@pytest.mark.parametrize("batch", [1, 8])
def test_hqs_kernel_update(measure, batch, size, backend):
    x, y, kernel, weight = problem(batch, 144, size)
    factors = ext.hqs_prepare(x[:, None], y, weight, size)

    def update() -> Tensor:
        if backend == COMPILED:
            return compiled("hqs_kernel_update")(kernel, factors)
        return ext.hqs_kernel_update(kernel, factors)

    exact = ext.HQSFactors(*(factor.double() for factor in factors))
    expected = reference.hqs_kernel_update(kernel.double(), exact)
    measure("hqs_kernel_update", backend, f"{batch} kernels, K = {size}", update, expected)


@pytest.mark.parametrize("backend", ["reference", NATIVE])
@pytest.mark.parametrize("side", [256, 512])
def test_iterations_do_not_depend_on_the_image(measure, side, backend):
    x, y, kernel, weight = problem(1, side, 64)
    factors = ext.hqs_prepare(x[:, None], y, weight, 64)

    def update() -> Tensor:
        return ext.hqs_kernel_update(kernel, factors, iterations=ITERATIONS)

    exact = ext.HQSFactors(*(factor.double() for factor in factors))
    expected = reference.hqs_kernel_update(kernel.double(), exact, True, ITERATIONS)
    shape = f"1 kernel, K = 64, of an image of {side} x {side}"
    measure("hqs_kernel_update, 20 iterations", backend, shape, update, expected)
