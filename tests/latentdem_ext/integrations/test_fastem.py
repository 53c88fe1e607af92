"""FastDiffusionEM and the LatentDEM release: same numbers from other arithmetic."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext.integrations import IntegrationError, fastem

from .stand_ins import fastem as target

REPLACED = {"fft_blur", "HQS_ker", "data_solution_deblur", "kernel_shift"}


@pytest.fixture
def fast():
    """The stand-in while it is accelerated."""
    with fastem.accelerate(target):
        yield target


@pytest.fixture(scope="module")
def slow():
    """The functions of the stand-in as they are."""
    return {name: getattr(target, name) for name in REPLACED}


def kernels(batch: int, size: int) -> Tensor:
    return ext.project_kernel(torch.rand(batch, 1, size, size))


def denoiser(kernel_and_level: Tensor) -> Tensor:
    kernel, level = kernel_and_level.split(1, 1)
    return torch.nn.functional.avg_pool2d(kernel, 3, 1, 1) + 0.1 * level


def test_replaces_and_puts_back_the_very_objects(snapshot, changed):
    before = snapshot(target)
    with fastem.accelerate(target):
        assert changed(target, before) == REPLACED
    assert not changed(target, before)
    fastem.remove()


def test_put_back_after_an_error(snapshot, changed):
    before = snapshot(target)
    with pytest.raises(ZeroDivisionError), fastem.accelerate(target):
        1 / 0  # noqa: B018
    assert not changed(target, before)


def test_second_apply_is_refused(fast):
    with pytest.raises(IntegrationError, match=r"call remove\(\) first"):
        fastem.apply(target)


@pytest.mark.parametrize("name", ["util.utils_agem", "emutil.utils_agem"])
def test_finds_the_imported_module(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, target)
    original = target.fft_blur
    with fastem.accelerate():
        assert target.fft_blur is not original
    assert target.fft_blur is original


def test_says_when_there_is_no_module():
    with pytest.raises(IntegrationError, match="FastDiffusionEM cannot be imported"):
        fastem.apply()


@pytest.mark.parametrize(("batch", "kernel_batch", "size"), [(1, 1, 5), (2, 1, 6), (2, 2, 5)])
def test_fft_blur(fast, slow, same, with_gradients, batch, kernel_batch, size):
    x, kernel = torch.randn(batch, 3, 20, 17), kernels(kernel_batch, size)
    with ext.record_backends() as used:
        actual = with_gradients(fast.fft_blur, x, kernel)
    assert "blur" in used
    for one, other in zip(actual, with_gradients(slow["fft_blur"], x, kernel), strict=True):
        assert same(one, other)


@pytest.mark.parametrize(
    "kernel", [torch.rand(1, 1, 3, 5), torch.rand(1, 3, 3, 3), torch.rand(1, 1, 3, 3).double()]
)
def test_kernels_that_the_operation_does_not_take_go_to_the_original(fast, slow, kernel):
    x = torch.randn(2, 3, 12, 9)
    assert torch.equal(fast.fft_blur(x, kernel), slow["fft_blur"](x, kernel))


@pytest.mark.parametrize("reg", ["pnp", "l1", "l2"])
@pytest.mark.parametrize(("samples", "size"), [(1, 9), (3, 8)])
def test_hqs_ker(fast, slow, same, samples, size, reg):
    y, x = torch.rand(1, 3, 40, 33), torch.rand(samples, 3, 40, 33)
    arguments = (y, x, 0.02, kernels(1, size))
    settings = {"denoiser": denoiser, "reg": reg, "beta": 5e6, "n_iter": 20, "ksize": size}
    with ext.record_backends() as used:
        actual = fast.HQS_ker(*arguments, **settings)
    assert "hqs_kernel_update" in used
    assert same(actual, slow["HQS_ker"](*arguments, **settings))


def test_hqs_ker_of_a_first_kernel_of_another_size_is_the_original(fast, slow, same):
    """As in FastDiffusionEM with the DPS sampler, which does not pass its kernel size on."""
    y, x = torch.rand(2, 1, 3, 40, 40)
    arguments = (y, x, 0.02, kernels(1, 21))
    settings = {"denoiser": denoiser, "n_iter": 3}
    assert same(fast.HQS_ker(*arguments, **settings), slow["HQS_ker"](*arguments, **settings))


def test_hqs_ker_with_a_denoiser_in_half_precision(fast, slow):
    """Under autocast the denoiser returns half precision; the M-step goes on in single precision."""
    y, x = torch.rand(2, 1, 3, 24, 24)
    settings = {"denoiser": lambda k: k[:, :1].half(), "n_iter": 4, "ksize": 7}
    actual = fast.HQS_ker(y, x, 0.02, kernels(1, 7), **settings)
    assert actual.dtype == torch.float32
    assert actual.sum() == pytest.approx(1, abs=1e-5)


def test_data_solution_deblur(fast, slow, same, with_gradients):
    arguments = torch.rand(1, 1, 20, 15), torch.rand(2, 3, 20, 15), torch.rand(1, 3, 20, 15)
    actual, expected = (
        with_gradients(lambda *a, f=f: f(*a, 3.0), *arguments)
        for f in (fast.data_solution_deblur, slow["data_solution_deblur"])
    )
    for one, other in zip(actual, expected, strict=True):
        assert same(one, other)


@pytest.mark.parametrize("shape", [(33, 33), (64, 64), (9, 12)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernel_shift(fast, slow, shape, dtype):
    kernel = np.random.default_rng(0).random(shape).astype(dtype)
    actual, expected = fast.kernel_shift(kernel, 1), slow["kernel_shift"](kernel, 1)
    assert actual.dtype == expected.dtype
    assert np.linalg.norm(actual - expected) <= 1e-6 * np.linalg.norm(expected)


def test_code_that_computes_something_else_is_left_alone(monkeypatch, snapshot, changed):
    """Here a blur with the kernel the other way round."""
    plain = target.fft_blur
    monkeypatch.setattr(target, "fft_blur", lambda img, k: plain(img, k.flip(-2, -1)))
    before = snapshot(target)
    with pytest.raises(IntegrationError, match="computes something else"):
        fastem.apply(target)
    assert not changed(target, before)


def test_code_with_other_parameters_is_left_alone(monkeypatch):
    plain = target.HQS_ker
    monkeypatch.setattr(target, "HQS_ker", lambda x, y, *args: plain(y, x, *args))
    with pytest.raises(IntegrationError, match="other parameters"):
        fastem.apply(target)


def test_module_without_the_functions_is_refused():
    with pytest.raises(IntegrationError, match="nothing of FastDiffusionEM to accelerate in math"):
        fastem.apply(__import__("math"))
