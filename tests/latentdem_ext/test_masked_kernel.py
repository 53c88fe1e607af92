"""Masked least squares in the kernel against dense solutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference

from .masked_problems import kernel_problem


def kernel_matrix(x: Tensor, mask: Tensor, weight: float, size: int) -> Tensor:
    """X^T M X + a: the columns of X are the images moved by the places of a kernel's values."""
    places = [(a - size // 2, b - size // 2) for a in range(size) for b in range(size)]
    moved = torch.stack([x.roll(place, (-2, -1)) for place in places])
    normal: Tensor = (mask * moved).flatten(1) @ moved.flatten(1).T
    return normal + weight * torch.eye(size * size, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 4, 7])
@pytest.mark.parametrize("factored", [False, True])
def test_kernel_solution_is_the_dense_one(size: int, factored: bool) -> None:
    x, mask, weight, right = kernel_problem(size)
    matrices = torch.stack([kernel_matrix(*one, size) for one in zip(x, mask, weight, strict=True)])
    factor = torch.linalg.cholesky(matrices + torch.eye(size * size)) if factored else None
    solution, residual = ext.masked_kernel_solve(
        x, mask, weight, right, factor, tolerance=1e-11, iterations=1000
    )
    expected = torch.linalg.solve(matrices, right.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(solution.flatten(1), expected, rtol=1e-7, atol=1e-9)
    left = right.flatten(1) - (matrices @ solution.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(residual.flatten(1), left, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("poisoned", "backend")
@pytest.mark.parametrize("size", [1, 4, 7, 20])
@pytest.mark.parametrize("factored", [False, True])
def test_kernel_solution_in_single_precision(size: int, factored: bool, assert_close_per_sample: Any) -> None:
    x, mask, weight, right = kernel_problem(size)
    factor = None
    if factored:
        matrices = [kernel_matrix(*one, size) for one in zip(x, mask, weight, strict=True)]
        factor = torch.linalg.cholesky(torch.stack(matrices))
    exact, _ = reference.masked_kernel_solve(x, mask, weight, right, factor, 1e-11, 1000)
    single = (None if value is None else value.float() for value in (x, mask, weight, right, factor))
    solution, residual = ext.masked_kernel_solve(*single, tolerance=1e-7, iterations=1000)  # type: ignore[arg-type]
    assert_close_per_sample(solution, exact, 1e-4)
    assert residual.abs().max() < 1e-3
