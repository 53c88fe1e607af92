"""What every operator promises: transposes, gradients, samples that do not mix, proximal steps, M-steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem import UserError
from latentdem.operators import (
    Blur,
    CameraResponse,
    Denoising,
    Function,
    Gamma,
    Gaussian,
    Inpainting,
    Operator,
    Parameter,
    ParameterPrior,
    Parametric,
    Penalty,
    PhaseRetrieval,
    Range,
    Saturation,
    Simplex,
    Smooth,
    Sparse,
    VaryingBlur,
)
from latentdem.operators.least_squares import Linearised
from latentdem.operators.parametric import looks_linear

Scene = Callable[..., Tensor]
SIZES = [(16, 16), (17, 20), (21, 19)]


def shrink(x: Tensor, scale: Tensor) -> Tensor:
    return scale.view(-1, 1, 1, 1) * x[..., ::2, ::2]


def brighter(x: Tensor, scale: Tensor) -> Tensor:
    return scale.view(-1, 1, 1, 1) * x


def linear(height: int, width: int) -> dict[str, Parametric]:
    halved = Function(shrink, {"scale": Parameter(0.7)}, image_size=lambda h, w: (2 * h, 2 * w))
    return {
        "denoise": Denoising(),
        "saturation": Saturation(),
        "varying": VaryingBlur(5, height, width),
        "function": halved,
        "composition": halved @ VaryingBlur(5, height, width, grid=3),
    }


def nonlinear(height: int, width: int) -> dict[str, Parametric]:
    return {
        "inpaint": Inpainting(height, width, 0.5),
        "gamma": Gamma(),
        "response": CameraResponse(9),
        "phase": PhaseRetrieval(),
        "composition": Gamma() @ VaryingBlur(5, height, width),
    }


def some_parameters(operator: Parametric, batch: int, like: Tensor) -> Tensor:
    """Different ones for every image."""
    values = {}
    for name, each in operator.parameters.items():
        value = torch.rand(batch, *each.shape).to(like) + 0.5
        if name == "kernels":
            value = value / value.sum((-2, -1), keepdim=True)
        values[name] = value if name != "mask" else value - 0.5
    return operator.pack(values) if values else like.new_zeros(batch, 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(linear(8, 8)))
def test_the_adjoint_is_the_transpose(name: str, size: tuple[int, int]) -> None:
    operator = linear(*size)[name]
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    parameters = some_parameters(operator, 2, x)
    measured = operator(x, parameters)
    y = torch.randn_like(measured)
    back = operator.adjoint(y, x, parameters)
    left, right = ((a * b).sum((1, 2, 3)) for a, b in ((measured, y), (x, back)))
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", list(nonlinear(8, 8)))
def test_the_derivative_is_the_limit_of_differences(name: str) -> None:
    operator = nonlinear(17, 20)[name]
    x = 0.8 * (2 * torch.rand(2, 3, 17, 20, dtype=torch.float64) - 1)
    parameters = some_parameters(operator, 2, x)
    v = torch.randn_like(x)
    tangent = Linearised(operator, x, parameters)
    step = 1e-6
    difference = (operator(x + step * v, parameters) - operator(x - step * v, parameters)) / (2 * step)
    torch.testing.assert_close(tangent(v), difference, rtol=1e-5, atol=1e-6)
    w = torch.randn_like(difference)
    torch.testing.assert_close((tangent(v) * w).sum(), (v * tangent.transpose(w)).sum(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", list(linear(8, 8) | nonlinear(8, 8)))
def test_images_and_parameters_have_gradients(name: str) -> None:
    operator = (linear(10, 9) | nonlinear(10, 9))[name]
    x = (1.6 * torch.rand(1, 1, 10, 9, dtype=torch.float64) - 0.8).requires_grad_()
    parameters = some_parameters(operator, 1, x.detach()).requires_grad_()
    # The mean keeps the Jacobian small.
    assert torch.autograd.gradcheck(lambda a, b: operator(a, b).mean((0, 1)), (x, parameters))


@pytest.mark.parametrize("name", list(linear(8, 8) | nonlinear(8, 8)))
def test_a_batch_equals_its_single_images(scene: Scene, name: str) -> None:
    operator = (linear(16, 20) | nonlinear(16, 20))[name]
    x = torch.cat([scene(16, 20, seed=s) for s in range(3)])
    parameters = some_parameters(operator, 3, x)
    y = operator(x, parameters) + 0.02
    rho, x0 = torch.tensor([0.1, 0.5, 1.0]), 0.9 * x
    variance = torch.full((3,), 4e-4)

    def everything(rows: slice) -> list[Tensor]:
        a, p, m = x0[rows], parameters[rows], y[rows]
        return [
            operator.proximal(a, p, m, rho[rows], 3),
            operator.residual(a, p, m),
            *operator.spectrum(a, p, m),
            operator.m_step(a[:, None], m, p, variance[rows]),
        ]

    singles = [everything(slice(i, i + 1)) for i in range(3)]
    for whole, parts in zip(everything(slice(0, 3)), zip(*singles, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", list(linear(8, 8)))
def test_the_proximal_step_solves_its_normal_equations(name: str) -> None:
    operator = linear(17, 20)[name]
    x0 = 0.5 * torch.randn(2, 3, 17, 20, dtype=torch.float64)
    parameters = some_parameters(operator, 2, x0)
    y = operator(0.5 * torch.randn_like(x0), parameters)
    rho = torch.tensor([0.2, 1.0], dtype=torch.float64)
    x = operator.proximal(x0, parameters, y, rho, 60)
    mask = operator.measured(y)
    gap = (y - operator(x, parameters)) * (1 if mask is None else mask)
    expected = operator.adjoint(gap, x, parameters) / rho.view(-1, 1, 1, 1)
    torch.testing.assert_close(x - x0, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", list(nonlinear(8, 8)))
def test_the_proximal_step_is_stationary(scene: Scene, name: str) -> None:
    operator = nonlinear(16, 20)[name]
    truth = 0.7 * scene(16, 20).double()
    parameters = operator.initial(truth)
    y = operator(truth, parameters)
    x0 = truth + 0.05 * torch.randn_like(truth)
    rho = torch.tensor([0.1], dtype=torch.float64)

    def cost(x: Tensor) -> Tensor:
        return (y - operator(x, parameters)).square().sum() + rho[0] * (x - x0).square().sum()

    x = operator.proximal(x0, parameters, y, rho, 30).requires_grad_()
    (gradient,) = torch.autograd.grad(cost(x), x)
    start = x0.clone().requires_grad_()
    (before,) = torch.autograd.grad(cost(start), start)
    assert cost(x) < 0.8 * cost(x0)
    assert gradient.norm() < 0.02 * before.norm()


def test_closed_forms_agree_with_conjugate_gradients(scene: Scene) -> None:
    x0, y, rho = scene(seed=1), scene(seed=2), torch.tensor([0.3])
    for operator in (Denoising(), Inpainting(40, 48)):
        parameters = operator.initial(y)
        closed = operator.proximal(x0, parameters, y, rho)
        torch.testing.assert_close(
            closed, Operator.proximal(operator, x0, parameters, y, rho, 20), atol=1e-4, rtol=0
        )


def test_varying_blur_with_equal_kernels_equals_blur(scene: Scene, problem: Callable[..., tuple]) -> None:
    _, kernel, _ = problem(1, 3, (40, 48, 7), torch.float32)
    x, operator = scene(), VaryingBlur(7, 40, 48, grid=3)
    found = operator.apply(x, kernels=kernel.expand(1, 9, 7, 7))
    torch.testing.assert_close(found, ext.blur(x, kernel), atol=1e-5, rtol=0)
    torch.testing.assert_close(operator.weights.sum(0), torch.ones(1, 40, 48))


def test_blur_agrees_with_the_general_forms(scene: Scene, problem: Callable[..., tuple]) -> None:
    _, kernel, _ = problem(1, 3, (40, 48, 7), torch.float32)
    x0, y, rho, blur = scene(seed=1), scene(seed=2), torch.tensor([0.1]), Blur(7)
    general = Operator.proximal(blur, x0, kernel, y, rho, 60)
    torch.testing.assert_close(blur.proximal(x0, kernel, y, rho), general, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        blur.adjoint(y, x0, kernel), Operator.adjoint(blur, y, x0, kernel), atol=1e-5, rtol=0
    )
    gain, _ = blur.spectrum(x0, kernel, y)
    mean = Operator.spectrum(blur, x0, kernel, y)[0].item()
    full = ext.kernel_to_otf(kernel, (40, 48)).abs().square()
    weights = torch.full_like(full, 2.0)
    weights[..., [0, -1]] = 1
    assert mean == pytest.approx(float((full * weights).sum() / weights.sum()), rel=0.1)
    assert gain.shape == (1, 40 * 25)


@pytest.mark.parametrize(
    ("name", "truth", "start"),
    [
        ("gamma", {"gamma": 1.8}, {"gamma": 1.2}),
        ("response", {"sigma": 1.5, "gamma": 2.4}, {"sigma": 1.0, "gamma": 2.0}),
    ],
)
def test_the_m_step_finds_parameters_from_the_true_image(
    scene: Scene, name: str, truth: dict[str, float], start: dict[str, float]
) -> None:
    operator, x = nonlinear(40, 48)[name], 0.9 * scene()
    y = operator(x, operator.initial(x, truth))
    parameters = operator.initial(y, start)
    for _ in range(8):
        parameters = operator.m_step(x[:, None], y, parameters, torch.tensor([1e-4]))
    found = operator.unpack(parameters)
    for key, value in truth.items():
        assert found[key].item() == pytest.approx(value, rel=0.05)


def test_the_m_step_leaves_fixed_parameters(scene: Scene) -> None:
    operator, x = CameraResponse(9), scene()
    operator.fixed = frozenset({"gamma"})
    before = operator.initial(x)
    after = operator.unpack(operator.m_step(x[:, None], x, before, torch.tensor([1e-4])))
    assert after["gamma"].item() == pytest.approx(2.2)
    assert after["sigma"].item() < 1.9
    operator.fixed = frozenset({"gamma", "sigma"})
    assert operator.m_step(x[:, None], x, before, torch.tensor([1e-4])) is before


def test_varying_blur_finds_kernels_from_the_true_image(scene: Scene) -> None:
    x, operator = scene(64, 64), VaryingBlur(5, 64, 64)
    truth = torch.zeros(1, 4, 5, 5)
    for g, (row, column) in enumerate([(1, 2), (2, 3), (3, 2), (2, 2)]):
        truth[0, g, row, column] = truth[0, g, 2, 2] = 0.5
    truth = truth / truth.sum((-2, -1), keepdim=True)
    y = operator.apply(x, kernels=truth)
    parameters = operator.initial(y)
    for _ in range(5):
        parameters = operator.m_step(x[:, None], y, parameters, torch.tensor([1e-8]))
    found = operator.unpack(parameters)["kernels"]
    correlation = (found * truth).sum((-2, -1)) / (found.norm(dim=(-2, -1)) * truth.norm(dim=(-2, -1)))
    assert correlation.min() > 0.9


@pytest.mark.parametrize("shape", ["rectangle", "strokes"])
def test_inpainting_finds_the_hidden_region(scene: Scene, shape: str) -> None:
    x = 0.8 * torch.cat([scene(seed=1), scene(seed=2)])
    truth = torch.ones(2, 1, 40, 48)
    truth[0, :, 5:15, 8:30] = 0
    truth[1, :, 20:33, 40:47] = 0
    operator = Inpainting(40, 48, -1.0, shape)
    noise = 0.02 * torch.randn(2, 3, 40, 48)
    y = operator.apply(x, mask=truth) + noise
    samples = (x + 0.1 * torch.randn_like(x))[:, None]
    mask = operator.unpack(operator.m_step(samples, y, operator.initial(y), torch.full((2,), 4e-4)))["mask"]
    if shape == "rectangle":
        assert torch.equal(mask, truth)
    else:
        assert ((mask > 0.5).float() == truth).float().mean() > 0.99
    nothing = operator.m_step(samples, x + noise, operator.initial(x), torch.full((2,), 4e-4))
    assert (nothing < 0.5).float().mean() < 0.01


def test_priors_are_enforced_by_the_m_step(scene: Scene) -> None:
    kernel = torch.randn(2, 1, 5, 5)
    simple = Simplex().project(kernel)
    assert simple.min() >= 0
    torch.testing.assert_close(simple.sum((1, 2, 3)), torch.ones(2))
    assert Range(0, 1).project(torch.tensor([-1.0, 0.5, 2.0])).tolist() == [0, 0.5, 1]
    flat = torch.ones(1, 4, 4)
    assert Smooth(2.0).penalty(flat).item() == 0
    assert Smooth(2.0).penalty(torch.eye(4)[None]).item() == pytest.approx(12.0)
    assert Sparse(0.5, 1.0).penalty(2 * flat).item() == 8
    assert Gaussian(1.0, 2.0).penalty(torch.tensor([5.0])).item() == 2
    assert Penalty(lambda v: v.flatten(1).sum(1)).penalty(flat).item() == 16


def test_a_penalty_pulls_the_m_step(scene: Scene) -> None:
    x = scene()

    def found(*priors: ParameterPrior) -> float:
        operator = Function(brighter, {"scale": Parameter(1.0, priors)})
        y = 0.8 * x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        parameters = operator.initial(x)
        for _ in range(4):
            parameters = operator.m_step(x[:, None], y, parameters, torch.tensor([1e-4]))
        return float(parameters)

    assert found() == pytest.approx(0.8, abs=0.03)
    assert found(Gaussian(1.0, 1e-3)) == pytest.approx(1.0, abs=0.02)
    assert found(Range(0.9, 2.0)) == pytest.approx(0.9)


def test_linearity_is_detected_numerically() -> None:
    assert looks_linear(VaryingBlur(5, 32, 32))
    assert not looks_linear(Gamma())
    assert not looks_linear(Inpainting(32, 32, 0.5))
    assert Function(lambda x: 2 * x).linear
    assert not Function(lambda x: x + 1).linear


def test_errors_name_the_wrong_parameter() -> None:
    y = torch.zeros(2, 3, 16, 16)
    with pytest.raises(UserError, match="no parameter radius; it has gamma"):
        Gamma().initial(y, {"radius": 2.0})
    with pytest.raises(UserError, match="gamma has the shape"):
        Gamma().initial(y, {"gamma": torch.ones(2, 2)})
    with pytest.raises(UserError, match="Both operators have a parameter gamma"):
        Gamma() @ CameraResponse(9)
