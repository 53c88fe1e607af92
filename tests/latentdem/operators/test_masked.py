"""The masked least squares against dense solutions, their tolerance, and the saving of a warm start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators import masked
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.operators.masked import TOLERANCE, MaskedKernelUpdate, masked_proximal

SHAPE = (20, 23)


def frame(*holes: tuple[int, int]) -> Tensor:
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.float64)
    mask[..., 3:-4, 4:-2] = 1
    for row, column in holes:
        mask[..., row, column] = 0
    return mask


def box(size: int) -> Tensor:
    """Its transfer function has lines of zeros on lattices that its size divides, and nearly so on others."""
    return torch.full((1, 1, size, size), 1 / size**2, dtype=torch.float64)


MASKS = {
    "frame": frame(),
    "frame and holes": frame((7, 9), (7, 10), (12, 5)),
    "holes alone": (torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(2)) > 0.2).double(),
    "everything": torch.ones(1, 1, *SHAPE, dtype=torch.float64),
}
KERNELS = {
    "motion": motion_kernels(1, 7, 0.5, 3).double(),
    "gaussian": gaussian_kernel(7, 1.5).double(),
    "box, nearly singular": box(5),
}


def problem(seed: int = 0, shape: tuple[int, int] = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, 1, 3, *shape, generator=generator, dtype=torch.float64) * 2 - 1)  # type: ignore[return-value]


def dense_proximal(x0: Tensor, kernel: Tensor, y: Tensor, mask: Tensor, rho: float) -> Tensor:
    size = mask[0, 0].numel()
    units = torch.eye(size, dtype=torch.float64).view(size, 1, *mask.shape[-2:])
    matrix = (mask * ext.blur(units, kernel.expand(size, -1, -1, -1).contiguous())).flatten(1).T
    normal = matrix.T @ matrix + rho * torch.eye(size, dtype=torch.float64)
    right = matrix.T @ (mask * y)[0].flatten(1).T + rho * x0[0].flatten(1).T
    return torch.linalg.solve(normal, right).T.view_as(x0)


@pytest.mark.parametrize("rho", [1e-8, 1e-3, 1.0])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_proximal_is_the_dense_solution(mask: Tensor, kernel: Tensor, rho: float) -> None:
    x0, y = problem()
    solution, fill = masked_proximal(
        x0, kernel, y, mask, torch.tensor([rho]).double(), tolerance=1e-9, iterations=2000
    )
    expected = dense_proximal(x0, kernel, y, mask, rho)
    gradient = ext.blur_adjoint(mask * (ext.blur(solution, kernel) - y), kernel) + rho * (solution - x0)
    assert gradient.abs().max() < 1e-8
    # At rho = 1e-8 the dense solution itself is no more precise than this.
    torch.testing.assert_close(solution, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fill, (1 - mask) * ext.blur(solution, kernel), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rho", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_tolerance_holds(mask: Tensor, kernel: Tensor, rho: float, dtype: torch.dtype) -> None:
    x0, y = problem()
    expected = dense_proximal(x0, kernel, y, mask, rho)
    solution, _ = masked_proximal(*(v.to(dtype) for v in (x0, kernel, y, mask, torch.tensor([rho]))))
    scale = max(1.0, float((expected - x0).square().mean().sqrt()))
    assert (solution - expected).square().mean().sqrt() < 1.5 * TOLERANCE * scale


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples went through each iteration."""
    done: list[int] = []
    solver = masked._conjugate_gradients

    def counting(normal, *rest):  # type: ignore[no-untyped-def]
        def counted(v: Tensor, rows: Tensor) -> Tensor:
            done.append(len(rows))
            return normal(v, rows)

        return solver(counted, *rest)

    monkeypatch.setattr(masked, "_conjugate_gradients", counting)
    return done


def smooth(seed: int, shape: tuple[int, int]) -> Tensor:
    return ext.blur(problem(seed, shape)[0], gaussian_kernel(15, 2.5).double()) * 4


def test_warm_start_saves_iterations(work: list[int]) -> None:
    shape, kernel, rho = (96, 96), motion_kernels(1, 15, 0.5, 3).double(), torch.tensor([1e-3]).double()
    mask = torch.zeros(1, 1, *shape, dtype=torch.float64)
    mask[..., 8:-8, 8:-8] = 1
    x, x0 = smooth(1, shape), smooth(2, shape)
    y = ext.blur(x, kernel)
    _, fill = masked_proximal(x0, kernel, y, mask, rho)
    cold = len(work)
    work.clear()
    masked_proximal(x0 + 0.1 * smooth(3, shape), kernel, y, mask, rho, fill)
    assert cold <= 12
    assert len(work) <= cold / 2


def test_each_sample_stops_alone_and_as_it_would_by_itself(work: list[int]) -> None:
    x0, y = (torch.cat([a, b]) for a, b in zip(problem(0), problem(1), strict=True))
    kernel, rho = torch.cat([KERNELS["gaussian"], KERNELS["motion"]]), torch.tensor([1.0, 1e-5]).double()
    solution, _ = masked_proximal(x0, kernel, y, MASKS["frame"], rho)
    assert work[0] == 2
    assert work[-1] == 1
    for i in (0, 1):
        alone, _ = masked_proximal(
            x0[i : i + 1], kernel[i : i + 1], y[i : i + 1], MASKS["frame"], rho[i : i + 1]
        )
        torch.testing.assert_close(solution[i : i + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dense", [True, False])
def test_kernel_update_is_the_dense_solution(monkeypatch: pytest.MonkeyPatch, dense: bool) -> None:
    if not dense:
        monkeypatch.setattr(masked, "_DENSE", 0)
    size, weight, mask = 5, 0.7, MASKS["frame and holes"]
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
