"""Blur of linear light: tone curves, the operator's derivatives, and its least squares."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.errors import UserError
from latentdem.operators import LinearLightBlur, ToneCurve
from latentdem.operators.kernels import gaussian_kernel
from latentdem.operators.least_squares import Linearised, conjugate_gradients

Scene = Callable[..., Tensor]
CURVES = [ToneCurve(), ToneCurve(2.2)]


@pytest.mark.parametrize("curve", CURVES)
def test_values_and_light_are_inverse_and_the_slope_is_the_derivative(curve: ToneCurve) -> None:
    values = torch.linspace(-1, 1, 513, dtype=torch.float64, requires_grad=True)
    light = curve.light(values)
    torch.testing.assert_close(curve.values(light), values, atol=1e-6, rtol=0)
    assert float(light.detach()[0]) == -1
    assert float(light.detach()[-1]) == pytest.approx(1)
    (derivative,) = torch.autograd.grad(light.sum(), values)
    torch.testing.assert_close(curve.slope(values), derivative)
    assert derivative.isfinite().all()


def test_srgb_is_that_of_its_standard() -> None:
    """Levels 10, 128 and 200 of 255 in linear light, by the formula of IEC 61966-2-1."""
    light = ToneCurve().light(torch.tensor([10, 128, 200], dtype=torch.float64) / 127.5 - 1)
    expected = torch.tensor([0.0030352698, 0.2158605001, 0.5775804405], dtype=torch.float64)
    torch.testing.assert_close((light + 1) / 2, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["srg", 0.5, 5, float("nan"), None])
def test_unknown_curves_are_refused(name: object) -> None:
    with pytest.raises(UserError, match="Unknown tone curve"):
        ToneCurve.named(name)


def test_exponent_1_is_no_curve() -> None:
    assert ToneCurve.named(1) is None
    assert ToneCurve.named("2.2") == ToneCurve(2.2)
    assert ToneCurve.named("srgb") == ToneCurve()


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("masked", [False, True])
def test_least_squares_reach_the_tolerance(scene: Scene, curve: ToneCurve, masked: bool) -> None:
    truth, kernel = scene(20, 24), gaussian_kernel(5, 1.2)
    mask = None
    if masked:
        mask = torch.zeros(1, 1, 20, 24)
        mask[..., 3:-3, 3:-3] = 1
    operator = LinearLightBlur(5, mask=mask, curve=curve)
    y, x0 = operator(truth, kernel), (truth * 0.9).clamp(-0.9, 0.9)
    rho = torch.tensor([0.01])
    linearised = Linearised(operator, x0, kernel)
    weight = 1 if mask is None else mask
    found = operator.proximal(x0, kernel, y, rho)

    def gradient(x: Tensor) -> Tensor:
        gap = weight * (y - linearised.value - linearised(x - x0))
        return 0.01 * (x - x0) - linearised.transpose(gap)

    inside = (found.abs() < 1) & (curve.slope(x0) > 0.1)
    assert gradient(found)[inside].norm() < 0.02 * gradient(x0).norm()
    assert operator.mean_square(found, kernel, y) < 0.3 * operator.mean_square(x0, kernel, y)


def test_derivatives_are_those_of_autograd(scene: Scene) -> None:
    operator, kernel = LinearLightBlur(5, curve=ToneCurve()), gaussian_kernel(5, 1.2)
    x, y = scene(16, 20).requires_grad_(), scene(16, 20).flip(-1)
    value, gradient, target = operator.fidelity(x.detach(), kernel, y)
    loss = (y - operator(x, kernel)).square().sum()
    (expected,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(value[0], loss.detach())
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(target, x.detach() - gradient / 2, atol=1e-5, rtol=1e-5)


def test_no_image_depends_on_the_batch_it_is_in(scene: Scene) -> None:
    operator, kernel = LinearLightBlur(5, curve=ToneCurve(2.2)), gaussian_kernel(5, 1.2)
    x0 = torch.cat([scene(16, 20), 0.2 * scene(16, 20)])
    kernels, rho = kernel.expand(2, -1, -1, -1), torch.tensor([1e-3, 1.0])
    y = operator(x0.flip(-1), kernels)
    together = operator.proximal(x0, kernels, y, rho)
    for i in range(2):
        alone = operator.proximal(x0[i : i + 1], kernel, y[i : i + 1], rho[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


def test_m_step_explains_the_light(scene: Scene) -> None:
    true = gaussian_kernel(7, 1.5)
    operator = LinearLightBlur(7, curve=ToneCurve())
    x = scene(40, 48)
    y = ext.blur(ToneCurve().light(x), true)
    found = operator.m_step(x[:, None], y, gaussian_kernel(7, 0.6), torch.tensor([1e-10]))
    assert (found - true).abs().sum() < 0.05
    torch.testing.assert_close(operator.light(x), ToneCurve().light(x))


def test_conjugate_gradients_stop_at_a_tolerance() -> None:
    calls = []

    def normal(v: Tensor) -> Tensor:
        calls.append(1)
        return torch.linspace(1, 4, v.numel()).view_as(v) * v

    right = torch.ones(1, 1, 8, 8)
    solve = partial(conjugate_gradients, normal, right, 50)
    loose = solve(tolerance=1e-2)
    assert len(calls) < 10
    assert (normal(loose) - right).norm() <= 1e-2 * right.norm()
