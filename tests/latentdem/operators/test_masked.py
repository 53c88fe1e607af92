"""The masked M-step's updates against dense solutions, and the saving of the later ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators import masked
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.operators.masked import MaskedKernelUpdate
from latentdem_ext import reference

SHAPE = (20, 23)


def frame(*holes: tuple[int, int]) -> Tensor:
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.float64)
    mask[..., 3:-4, 4:-2] = 1
    for row, column in holes:
        mask[..., row, column] = 0
    return mask


def problem(seed: int = 0, shape: tuple[int, int] = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, 1, 3, *shape, generator=generator, dtype=torch.float64) * 2 - 1)  # type: ignore[return-value]


@pytest.mark.parametrize("dense", [True, False])
def test_kernel_update_is_the_dense_solution(monkeypatch: pytest.MonkeyPatch, dense: bool) -> None:
    if not dense:
        monkeypatch.setattr(masked, "_DENSE", 0)
    size, weight, mask = 5, 0.7, frame((7, 9), (7, 10), (12, 5))
    x, y = (torch.cat([a, b]) for a, b in zip(problem(0), problem(1), strict=True))
    starts = [motion_kernels(2, size, 0.5, 3).double(), gaussian_kernel(size, 1).double().repeat(2, 1, 1, 1)]
    update = MaskedKernelUpdate(x[:, None], y, mask, torch.full((2,), weight).double(), 1e-11)
    for start in starts:  # the second one from the solution of the first
        for solution, image, measured, first in zip(update(start), x, y, start, strict=True):
            units = torch.eye(size * size, dtype=torch.float64).view(-1, 1, size, size)
            shifted = ext.blur(image.expand(size * size, -1, -1, -1).contiguous(), units)
            matrix = (mask * shifted).flatten(1).T
            left = matrix.T @ matrix + weight * torch.eye(size * size, dtype=torch.float64)
            solved = torch.linalg.solve(
                left, matrix.T @ (mask[0] * measured).flatten() + weight * first.flatten()
            )
            expected = solved.clamp_min(0) / solved.clamp_min(0).sum()
            torch.testing.assert_close(solution.flatten(), expected, rtol=1e-7, atol=1e-9)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples went through each iteration of the reference."""
    done: list[int] = []
    solver = reference.masked.conjugate_gradients

    def counting(normal, *rest):  # type: ignore[no-untyped-def]
        def counted(v: Tensor, rows: Tensor) -> Tensor:
            done.append(len(rows))
            return normal(v, rows)

        return solver(counted, *rest)

    monkeypatch.setattr(reference.masked, "conjugate_gradients", counting)
    return done


def smooth(seed: int, shape: tuple[int, int]) -> Tensor:
    return ext.blur(problem(seed, shape)[0], gaussian_kernel(15, 2.5).double()) * 4


def test_kernel_updates_after_the_first_cost_less(work: list[int]) -> None:
    shape = (96, 96)
    x, kernel, mask = (
        smooth(1, shape),
        motion_kernels(1, 11, 0.5, 3).double(),
        torch.zeros(1, 1, 96, 96).double(),
    )
    mask[..., 9:-9, 9:-9] = 1
    update = MaskedKernelUpdate(x[:, None], ext.blur(x, kernel), mask, torch.tensor([20.0]).double())
    solution = update(gaussian_kernel(11, 2).double())
    first = len(work)
    work.clear()
    update(solution)
    assert 0 < len(work) < first <= 12
