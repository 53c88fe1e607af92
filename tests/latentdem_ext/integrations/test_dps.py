"""DPS and BlindDPS: the measurement operators, forward and gradient, with their borders."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

import latentdem_ext as ext
from latentdem_ext.integrations import IntegrationError, dps

from .stand_ins import dps as target

REPLACED = {
    "Blurkernel.forward",
    "Resizer.forward",
    "BlindBlurOperator.apply_kernel",
    "TurbulenceOperator.apply_kernel",
}


def test_replaces_and_puts_back_the_very_objects(monkeypatch, snapshot, changed):
    monkeypatch.setitem(sys.modules, "guided_diffusion.measurements", target)
    before = snapshot(target)
    with dps.accelerate():
        assert changed(target, before) == REPLACED
    assert not changed(target, before)


@pytest.mark.parametrize(("size", "shape"), [(9, (40, 33)), (61, (64, 64)), (12, (24, 20))])
def test_blurkernel(same, with_gradients, size, shape):
    blur = target.Blurkernel(kernel_size=size)
    blur.update_weights(torch.rand(size, size) / size**2)
    x = torch.randn(2, 3, *shape)
    expected = with_gradients(blur, x)
    with dps.accelerate(target), ext.record_backends() as used:
        actual = with_gradients(blur, x)
    assert {"blur", "blur_adjoint"} <= set(used)
    assert all(map(same, actual, expected))


@pytest.mark.parametrize("size", [9, 64])
def test_blurkernel_of_the_latentdem_release(monkeypatch, same, with_gradients, size):
    monkeypatch.setattr(target, "Blurkernel", target.SizedBlurkernel)
    blur, x = target.SizedBlurkernel(kernel_size=size), torch.randn(1, 3, 70, 65)
    expected = with_gradients(blur, x)
    with dps.accelerate(target), ext.record_backends() as used:
        actual = with_gradients(blur, x)
    assert {"blur", "blur_adjoint"} <= set(used)
    assert actual[0].shape == x.shape
    assert all(map(same, actual, expected))


@pytest.mark.parametrize("case", ["small kernel", "a kernel for each channel", "double precision"])
def test_what_the_operation_does_not_take_goes_to_the_original(case):
    blur = target.Blurkernel(kernel_size=5 if case == "small kernel" else 11)
    x = torch.randn(1, 3, 20, 20)
    if case == "a kernel for each channel":
        blur.seq[1].weight.data.normal_()
    if case == "double precision":
        x = x.double()
        with dps.accelerate(target), pytest.raises(RuntimeError, match="type"):
            blur(x)
        return
    expected = blur(x)
    with dps.accelerate(target), ext.record_backends() as used:
        assert torch.equal(blur(x), expected)
    assert not used


def test_under_autocast_the_original_decides_the_precision():
    blur, x = target.Blurkernel(kernel_size=11), torch.randn(1, 3, 20, 20)
    with dps.accelerate(target), torch.autocast("cpu", torch.bfloat16):
        assert blur(x).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["BlindBlurOperator", "TurbulenceOperator"])
@pytest.mark.parametrize("size", [9, 16, 33])
def test_blind_operators(same, with_gradients, name, size):
    operator = getattr(target, name)("cpu")
    arguments = torch.randn(1, 3, 30, 27), torch.rand(1, 1, size, size)
    expected = with_gradients(operator.apply_kernel, *arguments)
    with dps.accelerate(target):
        actual = with_gradients(operator.apply_kernel, *arguments)
    assert all(map(same, actual, expected))


@pytest.mark.parametrize("factor", [0.5, 0.25])
def test_super_resolution(same, with_gradients, factor):
    resizer, x = target.Resizer((1, 3, 32, 40), factor), torch.randn(2, 3, 32, 40)
    expected = with_gradients(resizer, x)
    with dps.accelerate(target):
        actual = with_gradients(resizer, x)
    assert all(map(same, actual, expected))


def test_conditioning_step(same):
    operator, measurement = target.MotionBlurOperator(21), torch.randn(1, 3, 32, 32)
    x_prev = torch.randn(1, 3, 32, 32, requires_grad=True)

    def step():
        clean = torch.tanh(x_prev) + 0.1 * x_prev.flip(-1)
        return target.conditioning(x_prev, torch.zeros(1, 3, 32, 32), clean, measurement, operator, 0.3)

    expected = step()
    with dps.accelerate(target):
        actual = step()
    assert all(same(one.detach(), other.detach()) for one, other in zip(actual, expected, strict=True))


def test_code_that_computes_something_else_is_left_alone(monkeypatch, snapshot, changed):
    """Zero borders instead of reflected ones."""
    monkeypatch.setattr(
        target.Blurkernel, "forward", lambda self, x: self.seq[1](F.pad(x, [self.kernel_size // 2] * 4))
    )
    before = snapshot(target)
    with pytest.raises(IntegrationError, match="computes something else"):
        dps.apply(target)
    assert not changed(target, before)


def test_code_that_is_built_otherwise_is_left_alone(monkeypatch, snapshot, changed):
    def padded_by_hand(self, x):
        return self.seq[1](F.pad(x, [self.kernel_size // 2] * 4, mode="reflect"))

    def init(self, kernel_size=31, **settings):
        build(self, kernel_size=kernel_size, **settings)
        self.seq[0] = torch.nn.Identity()

    build = target.Blurkernel.__init__
    monkeypatch.setattr(target.Blurkernel, "__init__", init)
    monkeypatch.setattr(target.Blurkernel, "forward", padded_by_hand)
    before = snapshot(target)
    with pytest.raises(IntegrationError, match="cannot be called or replaced"):
        dps.apply(target)
    assert not changed(target, before)
