"""The registered operations of latentdem_ext on the CUDA kernels, which run on the CPU here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem_ext import _native
from latentdem_ext._registry import OPERATIONS

from ..launches import Launches

pytestmark = pytest.mark.usefixtures("on_shim")


def everything(x: Tensor, kernel: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    ones = torch.ones(x.shape[0])
    factors = ext.hqs_prepare(x[:, None], y, ones, kernel.shape[-1])
    return (
        *factors,
        ext.hqs_kernel_update(kernel, factors, iterations=3),
        ext.hqs_kernel_update(kernel, factors, project=False),
        ext.project_kernel(kernel - kernel.mean()),
        *ext.blur_fidelity(x, kernel, y),
        ext.blur_proximal(x, kernel, y, ones),
    )


@pytest.mark.parametrize("shape", [(20, 23, 7), (70, 66, 65), (64, 23, 7)])
def test_operations_run_on_the_kernels(problem, shape, monkeypatch):
    values = problem(2, 3, shape, torch.float32)
    called = set()
    call = _native.call_cuda
    monkeypatch.setattr(_native, "call_cuda", lambda name, **given: (called.add(name), call(name, **given)))
    actual = everything(*values)
    own = "hqs_kernel_update" if shape[2] <= 64 else "hqs_finish"
    by_height = {"hqs_lags", "blur_columns"} if shape[0] == 64 else {"hqs_solve", "blur_residual"}
    assert called == {own, "hqs_finish", "hqs_crop", "blur_glue", *by_height}
    with ext.use_backend("reference"):
        expected = everything(*(value.double() for value in values))
    for one, exact in zip(actual, expected, strict=True):
        assert one.shape == exact.shape
        assert float((one - exact).norm()) <= 1e-5 * float(exact.norm())


def test_gradient_of_the_norm_comes_from_the_kernels(problem):
    x, kernel, y = problem(2, 3, (20, 23, 7), torch.float32)
    (gradient,) = torch.autograd.grad(ext.blur_fidelity(x.requires_grad_(), kernel, y).norm2.sum(), x)
    torch.testing.assert_close(gradient, ext.blur_fidelity(x, kernel, y).gradient)


def test_registration(problem):
    x, kernel, y = problem(2, 3, (20, 23, 7), torch.float32)
    operations, ones = torch.ops.latentdem, torch.ones(2)
    factors = ext.hqs_prepare(x[:, None], y, ones, 7)
    checks = {"test_utils": ("test_schema", "test_faketensor")}  # autograd is that of every backend
    torch.library.opcheck(operations.hqs_prepare.default, (x[:, None], y, ones, 7, False, None), **checks)
    torch.library.opcheck(operations.hqs_kernel_update.default, (kernel, *factors, True, 2), **checks)
    m_step = (kernel, *factors, *load_kernel_denoiser().layers(), ones, True, 2)
    torch.library.opcheck(operations.hqs_m_step.default, m_step, **checks)
    torch.library.opcheck(operations.blur_fidelity.default, (x, kernel, y, None), **checks)
    torch.library.opcheck(operations.blur_proximal.default, (x, kernel, y, ones, None), **checks)
    torch.library.opcheck(operations.project_kernel.default, (kernel,), **checks)
    mask, few = torch.ones(1, 1, 20, 23), (1e-3, 1)
    torch.library.opcheck(operations.masked_proximal.default, (x, kernel, y, mask, ones, None, *few), **checks)
    solve = operations.masked_kernel_solve.default
    torch.library.opcheck(solve, (x, mask, ones, kernel, None, *few), **checks)


def test_a_step_starts_few_programs(problem, monkeypatch):
    """Of images with a height that is a power of two, whose measurement is transformed already."""
    x, kernel, y = problem(2, 3, (64, 40, 7), torch.float32)
    mask, right = torch.ones(1, 1, 64, 40), torch.rand(2, 1, 7, 7)
    mask[..., :3, :] = mask[..., -5:] = 0
    y_hat, ones = torch.fft.rfft2(y), torch.ones(2)
    call = _native.call_cuda

    def run(operation, *arguments) -> list[str]:
        with Launches() as launches:
            monkeypatch.setattr(
                _native, "call_cuda", lambda name, **given: (launches.names.append(name), call(name, **given))
            )
            OPERATIONS[operation].backends["cuda"].run(*arguments)
        return launches.names

    proximal = run("blur_proximal", x, kernel, y, ones, y_hat)
    assert proximal == ["_fft_r2c", "blur_columns", "_fft_c2r", "add_"]
    fidelity = run("blur_fidelity", x, kernel, y, y_hat)
    assert fidelity == ["_fft_r2c", "blur_columns", "_fft_c2r", "blur_glue", "sum"]
    prepare = run("hqs_prepare", x[:, None], y, ones, 7, False, y_hat)
    assert prepare == ["_fft_r2c", "hqs_lags", "_fft_c2r", "_fft_c2r", "hqs_crop", "_fft_r2c"]
    factors = ext.hqs_prepare(x[:, None], y, ones, 7)
    assert run("hqs_kernel_update", kernel, *factors, True, 20) == ["hqs_kernel_update"]
    layers = load_kernel_denoiser().layers()
    m_step = (kernel, *factors, *layers, ones, True, 20)
    OPERATIONS["hqs_m_step"].backends["cuda"].run(*m_step)  # weights are laid out once
    assert run("hqs_m_step", *m_step) == ["hqs_m_step"]
    # All iterations are one call, in which nothing is allocated and nothing waits for the device.
    assert run("masked_proximal", x, kernel, y, mask, ones, None, 1e-3, 2) == ["masked_proximal"]
    assert run("masked_kernel_solve", x, mask, ones, right, None, 1e-3, 2) == ["masked_kernel_solve"]
