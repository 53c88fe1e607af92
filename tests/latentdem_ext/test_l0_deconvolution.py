"""Deconvolution with few edges against dense solutions, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators.kernels import motion_kernels
from latentdem_ext import reference
from latentdem_ext.reference.edges import adjoint_of_differences, differences

from .fuzzing import fuzz

SHAPE = (20, 24)  # even, as the compiled module has it
CPP = pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)


@pytest.fixture(params=["reference", pytest.param("cpp", marks=CPP)])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with ext.use_backend(request.param):
        yield request.param


def problem(channels: int = 1, shape: tuple[int, int] = SHAPE) -> dict[str, Any]:
    """Three samples with settings of their own."""
    y = torch.rand(3, channels, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = torch.cat([motion_kernels(1, 5, 0.5, seed).double() for seed in range(3)])
    penalty = torch.tensor([8e-3, 5e-2, 1e-3], dtype=torch.float64)
    growth = torch.tensor([2.0, 4.0, 2.0], dtype=torch.float64)
    last_weight = torch.tensor([1.0, 20.0, 5.0], dtype=torch.float64)
    numbers = {"penalty": penalty, "weight": 8 * penalty, "growth": growth, "last_weight": last_weight}
    return {"y": y, "kernel": kernel, **numbers}


def matrix_of(operation: Any) -> Tensor:
    """(H W, H W) matrix of a linear map of images."""
    count = SHAPE[0] * SHAPE[1]
    units = torch.eye(count, dtype=torch.float64).view(count, 1, *SHAPE)
    return operation(units).view(count, count).T


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("channels", [1, 3])
def test_each_weight_is_a_least_squares_fit_to_the_strong_gradients(channels: int) -> None:
    given = problem(channels)
    for n in range(3):
        y, kernel = given["y"][n : n + 1], given["kernel"][n : n + 1]
        blur = matrix_of(lambda u, kernel=kernel: reference.blur(u, kernel.expand(len(u), -1, -1, -1)))
        steps = [matrix_of(lambda u, i=i: differences(u)[i]) for i in (0, 1)]
        x, weight, penalty = y, float(given["weight"][n]), float(given["penalty"][n])
        while weight < float(given["last_weight"][n]):
            gradients = differences(x)
            strong = sum(g.square().sum(1, keepdim=True) for g in gradients) >= penalty / weight
            right = blur.T @ y[0].flatten(1).T
            for step, gradient in zip(steps, gradients, strict=True):
                right = right + weight * step.T @ (gradient * strong)[0].flatten(1).T
            left = blur.T @ blur + weight * sum(step.T @ step for step in steps)
            x = torch.linalg.solve(left, right).T.view(1, channels, *SHAPE)
            weight *= float(given["growth"][n])
        one = {name: value[n : n + 1].float() for name, value in given.items()}
        result = ext.l0_deconvolution(**one)
        torch.testing.assert_close(result.double(), x, rtol=0, atol=2e-5)


def test_samples_do_not_depend_on_each_other(backend: str) -> None:
    given = {name: value.float() for name, value in problem().items()}
    together = ext.l0_deconvolution(**given)
    for n in range(3):
        alone = ext.l0_deconvolution(**{name: value[n : n + 1] for name, value in given.items()})
        torch.testing.assert_close(alone[0], together[n], rtol=0, atol=0 if backend == "cpp" else 1e-5)


def test_results_do_not_depend_on_the_number_of_threads(backend: str, on_every_number_of_threads: Any) -> None:
    given = {name: value.float() for name, value in problem(2).items()}
    first, *others = on_every_number_of_threads(lambda: ext.l0_deconvolution(**given))
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=1e-5 if backend == "reference" else 0)


@pytest.mark.usefixtures("backend")
def test_an_edge_survives_and_small_differences_vanish() -> None:
    x = torch.zeros(1, 1, 32, 32)
    x[..., 8:24, 8:24] = 1
    y = x + 0.01 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    kernel = torch.ones(1, 1, 1, 1)
    penalty = torch.tensor([1e-2])
    result = ext.l0_deconvolution(y, kernel, penalty, 8 * penalty, torch.tensor([2.0]), torch.tensor([1e4]))
    across, _ = differences(result)
    assert across[..., 8:24, 7].abs().min() > 0.9
    assert across[..., 8:24, 10:22].abs().max() < 1e-3


def test_differences_and_their_adjoint() -> None:
    a, b, c = torch.rand(3, 1, 2, 5, 7, dtype=torch.float64)
    across, down = differences(a)
    adjoint = adjoint_of_differences(b, c)
    assert float((across * b + down * c).sum()) == pytest.approx(float((a * adjoint).sum()))


@pytest.mark.usefixtures("backend")
def test_no_weight_and_no_sample_leave_the_images_as_they_are() -> None:
    given = {name: value.float() for name, value in problem().items()}
    assert torch.equal(ext.l0_deconvolution(**given | {"last_weight": torch.zeros(3)}), given["y"])
    empty = {name: value[:0] for name, value in given.items()}
    assert ext.l0_deconvolution(**empty).shape == (0, 1, *SHAPE)


@CPP
def test_sizes_that_the_compiled_module_does_not_transform() -> None:
    given = {name: value.float() for name, value in problem(1, (20, 23)).items()}
    with ext.record_backends() as used:
        ext.l0_deconvolution(**given)
    assert used["l0_deconvolution"] == ["reference"]
    with ext.use_backend("cpp"), pytest.raises(RuntimeError, match="y has 23 columns: odd"):
        ext.l0_deconvolution(**given)


def test_registration() -> None:
    given = (value.float() for value in problem().values())
    checks = {"test_utils": ("test_schema", "test_faketensor")}
    torch.library.opcheck(torch.ops.latentdem.l0_deconvolution.default, tuple(given), **checks)


def test_what_cannot_end_is_refused() -> None:
    given = problem()
    for name, value, message in (
        ("penalty", 0.0, "penalty must be above 0"),
        ("growth", 1.0, "growth must be above 1"),
        ("growth", 1.0001, "growth must take weight to last_weight in 1000 steps"),
    ):
        wrong = {**given, name: torch.full_like(given[name], value)}
        with pytest.raises(ValueError, match=message):
            ext.l0_deconvolution(**wrong)
    with pytest.raises(ValueError, match="y requires a gradient, which l0_deconvolution does not compute"):
        ext.l0_deconvolution(**{**given, "y": given["y"].requires_grad_()})


def test_arguments_of_every_kind_are_taken_or_refused_by_name() -> None:
    def valid(batch: int) -> dict[str, Any]:
        return {
            "y": torch.rand(batch, 2, 6, 8),
            "kernel": torch.rand(batch, 1, 3, 3),
            "penalty": torch.rand(batch) + 0.1,
            "weight": torch.rand(batch) + 0.1,
            "growth": torch.rand(batch) + 1.5,
            "last_weight": torch.rand(batch) + 1.5,
        }

    fuzz(ext.l0_deconvolution, valid)
