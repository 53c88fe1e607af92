"""The M-step's descent against minima in closed form, and samples that do not mix."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

import latentdem
from latentdem.operators import Function, Gaussian, Parameter, Range
from latentdem.operators.descent import Optimizer, descend

OPTIMIZERS = get_args(Optimizer)


def identity(name: str, value: Tensor) -> Tensor:
    return value


@pytest.mark.parametrize("by", OPTIMIZERS)
def test_free_values_approach_the_minimum(by: Optimizer) -> None:
    """A quadratic of two values whose scales differ a thousandfold; a third one is held."""
    target = torch.tensor([[0.3, -0.2], [0.5, 0.1], [-0.4, 0.2]])

    def cost(values: dict[str, Tensor], rows: slice) -> Tensor:
        gap = values["a"] - target[rows]
        return gap.square().sum(1) + (1e-3 * values["b"] - 0.2).square() + values["c"]

    start = {"a": torch.zeros(3, 2), "b": torch.full((3,), 100.0), "c": torch.ones(3)}
    before = {name: value.clone() for name, value in start.items()}
    found = descend(cost, start, {"a": 0.02, "b": 20.0}, identity, by)
    for name, value in start.items():
        assert torch.equal(value, before[name])
    assert torch.equal(found["c"], start["c"])
    tolerance = 1e-4 if by == "lbfgs" else 0.1
    torch.testing.assert_close(found["a"], target, atol=tolerance, rtol=0)
    torch.testing.assert_close(found["b"], torch.full((3,), 200.0), atol=200 * tolerance, rtol=0)


@pytest.mark.parametrize("by", OPTIMIZERS)
def test_images_do_not_mix(by: Optimizer) -> None:
    target = torch.tensor([0.5, 3.0, -1.0])

    def cost(values: dict[str, Tensor], rows: slice) -> Tensor:
        return (values["a"] - target[rows]).square().log1p()

    whole = descend(cost, {"a": torch.zeros(3)}, {"a": 0.1}, identity, by)["a"]
    for i in range(3):
        single = descend(
            lambda v, _, i=i: cost(v, slice(i, i + 1)), {"a": torch.zeros(1)}, {"a": 0.1}, identity, by
        )
        torch.testing.assert_close(single["a"], whole[i : i + 1])


@pytest.mark.parametrize("by", OPTIMIZERS)
def test_values_stay_in_the_allowed_set(by: Optimizer) -> None:
    found = descend(
        lambda values, rows: (values["a"] - 2).square(),
        {"a": torch.zeros(2)},
        {"a": 0.1},
        lambda name, value: value.clamp(-1, 1),
        by,
    )
    torch.testing.assert_close(found["a"], torch.ones(2))


@pytest.mark.parametrize("by", OPTIMIZERS)
def test_an_operator_takes_either_optimizer(by: Optimizer) -> None:
    def fade(x: Tensor, strength: Tensor, offset: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, x.shape[-1])
        return x * (1 - strength.view(-1, 1, 1, 1) * ramp) + offset.view(-1, 1, 1, 1)

    unknown = {
        "strength": Parameter(0.1, (Range(0, 1),), 0.05),
        "offset": Parameter(0.0, (Gaussian(0, 1),), 0.02),
    }
    operator = Function(fade, unknown, optimizer=by)
    x = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    truth = {"strength": torch.tensor([0.6, 0.3]), "offset": torch.tensor([0.1, -0.2])}
    y = operator.apply(x, **truth)
    parameters = operator.initial(y)
    for _ in range(2):
        parameters = operator.m_step(x[:, None], y, parameters, torch.full((2,), 4e-4))
    found = operator.unpack(parameters)
    for name, value in truth.items():
        # Adam ends within a few of its steps.
        tolerance = 4 * unknown[name].step if by == "adam" else 0.005
        torch.testing.assert_close(found[name], value, atol=tolerance, rtol=0)


def test_blind_restoration_by_lbfgs(tiny_prior: latentdem.EmbeddedPrior) -> None:
    operator = Function(
        lambda x, scale: scale.view(-1, 1, 1, 1) * x, {"scale": Parameter(1.0)}, optimizer="lbfgs"
    )
    y = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    result = latentdem.restore(y, operator, noise_sigma=0.02, prior=tiny_prior, steps=4, device="cpu")
    assert result.parameters["scale"].isfinite().all()
    assert result.image.isfinite().all()
