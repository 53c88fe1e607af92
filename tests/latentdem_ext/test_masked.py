"""The masked least squares of latentdem_ext: images against dense solutions, tolerance and backends of both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext.reference import masked
from latentdem_ext.reference.masked import PROXIMAL_TOLERANCE, UNASKED

from ..stand_in import fetch, put, stand_in_device
from .fuzzing import fuzz
from .masked_problems import KERNELS, MASKS, SHAPE, batch, box, gaussian, images, kernel_problem


def blur_of_mask(kernel: Tensor, mask: Tensor) -> Tensor:
    """(H W, H W): the blur of an image, written down value by value, at the measured pixels."""
    height, width = mask.shape[-2:]
    matrix = torch.zeros(height, width, height, width, dtype=torch.float64)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    size = kernel.shape[-1]
    for a in range(size):
        for b in range(size):
            row, column = (rows - a + size // 2) % height, (columns - b + size // 2) % width
            matrix[rows, columns, row, column] += kernel[0, 0, a, b]
    return mask.view(-1, 1) * matrix.view(height * width, -1)


def dense_proximal(x0: Tensor, kernel: Tensor, y: Tensor, mask: Tensor, rho: float) -> Tensor:
    matrix = blur_of_mask(kernel, mask)
    normal = matrix.T @ matrix + rho * torch.eye(len(matrix), dtype=torch.float64)
    right = matrix.T @ (mask * y)[0].flatten(1).T + rho * x0[0].flatten(1).T
    return torch.linalg.solve(normal, right).T.view_as(x0)


@pytest.mark.parametrize("rho", [1e-8, 1e-3, 1.0])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_proximal_is_the_dense_solution(mask: Tensor, kernel: Tensor, rho: float) -> None:
    x0, y = images()
    solution, fill = ext.masked_proximal(
        x0, kernel, y, mask, torch.tensor([rho]).double(), tolerance=1e-9, iterations=2000
    )
    expected = dense_proximal(x0, kernel, y, mask, rho)
    gradient = ext.blur_adjoint(mask * (ext.blur(solution, kernel) - y), kernel) + rho * (solution - x0)
    assert gradient.abs().max() < 1e-8
    # At rho = 1e-8 the dense solution itself is no more precise than this.
    torch.testing.assert_close(solution, expected, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(fill, (1 - mask) * ext.blur(solution, kernel), rtol=1e-5, atol=5e-6)


@pytest.mark.usefixtures("poisoned", "backend")
@pytest.mark.parametrize("rho", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_tolerance_holds_in_single_precision(mask: Tensor, kernel: Tensor, rho: float) -> None:
    x0, y = images()
    expected = dense_proximal(x0, kernel, y, mask, rho)
    solution, _ = ext.masked_proximal(*(v.float() for v in (x0, kernel, y, mask, torch.tensor([rho]))))
    scale = max(1.0, float((expected - x0).square().mean().sqrt()))
    assert (solution - expected).square().mean().sqrt() < 1.5 * PROXIMAL_TOLERANCE * scale


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples went through each iteration of the reference."""
    done: list[int] = []
    solver = masked.conjugate_gradients

    def counting(normal, *rest):  # type: ignore[no-untyped-def]
        def counted(v: Tensor, rows: Tensor) -> Tensor:
            done.append(len(rows))
            return normal(v, rows)

        return solver(counted, *rest)

    monkeypatch.setattr(masked, "conjugate_gradients", counting)
    return done


def smooth(seed: int, shape: tuple[int, int]) -> Tensor:
    return ext.blur(images(seed, shape)[0], gaussian(15, 2.5)) * 4


def test_warm_start_saves_iterations(work: list[int]) -> None:
    shape, kernel, rho = (96, 96), gaussian(15, 2.0), torch.tensor([1e-3]).double()
    mask = torch.zeros(1, 1, *shape, dtype=torch.float64)
    mask[..., 8:-8, 8:-8] = 1
    x, x0 = smooth(1, shape), smooth(2, shape)
    y = ext.blur(x, kernel)
    _, fill = ext.masked_proximal(x0, kernel, y, mask, rho)
    cold = len(work)
    work.clear()
    ext.masked_proximal(x0 + 0.1 * smooth(3, shape), kernel, y, mask, rho, fill)
    assert cold <= 12
    assert len(work) <= cold / 2


def test_each_sample_stops_alone_and_as_it_would_by_itself(work: list[int]) -> None:
    x0, y = (torch.cat([a, b]) for a, b in zip(images(0), images(1), strict=True))
    kernel, rho = torch.cat([KERNELS["gaussian"], KERNELS["motion"]]), torch.tensor([1.0, 1e-5]).double()
    solution, _ = ext.masked_proximal(x0, kernel, y, MASKS["frame"], rho)
    assert work[0] == 2
    assert work[-1] == 1
    for i in (0, 1):
        alone, _ = ext.masked_proximal(
            x0[i : i + 1], kernel[i : i + 1], y[i : i + 1], MASKS["frame"], rho[i : i + 1]
        )
        torch.testing.assert_close(solution[i : i + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("filled", [False, True])
def test_compiled_module_has_the_result_of_the_reference(
    backend: str, filled: bool, assert_close_per_sample: Any
) -> None:
    x0, kernel, y, mask, rho = (value.float() for value in batch())
    fill = torch.rand_like(x0) if filled else None
    with ext.use_backend("reference"):
        expected = ext.masked_proximal(x0, kernel, y, mask, rho, fill)
    for actual, one in zip(ext.masked_proximal(x0, kernel, y, mask, rho, fill), expected, strict=True):
        assert_close_per_sample(actual, one, 1e-4)


@pytest.mark.parametrize("shape", [(20, 24), (22, 26), (144, 64), (48, 182)])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.usefixtures("backend")
def test_every_size_of_grid_and_band(shape: tuple[int, int], channels: int) -> None:
    """Up to 96 rows get exact blocks, half of them on each side of the frame."""
    generator = torch.Generator().manual_seed(1)
    x0, y = torch.rand(2, 2, channels, *shape, generator=generator) * 2 - 1
    kernel, rho = gaussian(9, 1.5).float().repeat(2, 1, 1, 1), torch.tensor([0.3, 0.02])
    mask = torch.zeros(1, 1, *shape)
    mask[..., 5:15, 6:17] = 1
    x, fill = ext.masked_proximal(x0, kernel, y, mask, rho, tolerance=1e-6, iterations=500)
    gradient = ext.reference.blur_adjoint(mask * (ext.reference.blur(x, kernel) - y), kernel)
    gradient = gradient + rho.view(-1, 1, 1, 1) * (x - x0)
    assert gradient.abs().max() < 1e-4
    torch.testing.assert_close(fill, (1 - mask) * ext.reference.blur(x, kernel), rtol=0, atol=1e-3)


@pytest.mark.usefixtures("backend")
def test_layout_of_the_arguments_does_not_matter() -> None:
    x0, kernel, y, mask, rho = (value.float() for value in batch())
    expected = ext.masked_proximal(x0, kernel, y, mask, rho, y)
    turned = [value.mT.contiguous().mT for value in (x0, kernel, y, mask)]
    for one, other in zip(
        ext.masked_proximal(*turned, rho.double(), turned[2]),  # type: ignore[call-arg]
        expected,
        strict=True,
    ):
        assert one.is_contiguous()
        torch.testing.assert_close(one, other)


def test_results_do_not_depend_on_the_number_of_threads(backend: str, on_every_number_of_threads: Any) -> None:
    proximal = [value.float() for value in batch()]
    single = [value.float() for value in kernel_problem(7)]

    def solve() -> tuple[Tensor, ...]:
        return (*ext.masked_proximal(*proximal), *ext.masked_kernel_solve(*single, tolerance=1e-5))

    first, *others = on_every_number_of_threads(solve)
    for other in others:
        for one, same in zip(other, first, strict=True):
            # PyTorch sums in an order that depends on the threads.
            torch.testing.assert_close(one, same, rtol=0, atol=1e-5 if backend == "reference" else 0)


@pytest.mark.usefixtures("backend")
def test_an_empty_batch_stays_empty() -> None:
    proximal = [value.float()[:0] for value in batch()]
    x, fill = ext.masked_proximal(*proximal)
    assert x.shape == fill.shape == (0, 3, *SHAPE)
    solution, _ = ext.masked_kernel_solve(*(value.float()[:0] for value in kernel_problem(7)), tolerance=1e-5)
    assert solution.shape == (0, 1, 7, 7)


@pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
@pytest.mark.parametrize(("shape", "named"), [((20, 23), "23 columns"), ((34, 20), "34 rows")])
def test_sizes_that_the_compiled_module_does_not_transform(shape: tuple[int, int], named: str) -> None:
    x0, y = (value.float() for value in images(0, shape))
    arguments = x0, box(5).float(), y, torch.ones(1, 1, *shape), torch.ones(1)
    with ext.record_backends() as used:
        ext.masked_proximal(*arguments)
    assert used["masked_proximal"] == ["reference"]
    with ext.use_backend("cpp"), pytest.raises(RuntimeError, match=f"x0 has {named}: odd, or with a prime"):
        ext.masked_proximal(*arguments)


def test_registration() -> None:
    x0, kernel, y, mask, rho = (value.float() for value in batch())
    operations = torch.ops.latentdem
    checks = {"test_utils": ("test_schema", "test_faketensor")}
    for fill in (None, y):
        arguments = (x0, kernel, y, mask, rho, fill, 1e-3, 5)
        torch.library.opcheck(operations.masked_proximal.default, arguments, **checks)
    single = [value.float() for value in kernel_problem(4)]
    for factor in (None, torch.eye(16).repeat(2, 1, 1)):
        torch.library.opcheck(operations.masked_kernel_solve.default, (*single, factor, 1e-3, 5), **checks)


def test_gradients_are_refused() -> None:
    x0, kernel, y, mask, rho = batch()
    with pytest.raises(ValueError, match="x0 requires a gradient, which masked_proximal does not compute"):
        ext.masked_proximal(x0.requires_grad_(), kernel, y, mask, rho)


@pytest.mark.parametrize("operation", [ext.masked_kernel_solve, ext.masked_proximal])
def test_arguments_of_every_kind_are_taken_or_refused_by_name(operation: Any) -> None:
    def valid(batch: int) -> dict[str, Any]:
        x, y = torch.rand(2, batch, 2, 6, 8)
        mask = (torch.rand(1, 1, 6, 8) > 0.3).float()
        numbers = {"tolerance": 1e-6, "iterations": 20}
        if operation is ext.masked_proximal:
            rho = torch.rand(batch) + 0.05
            return {"x0": x, "kernel": torch.rand(batch, 1, 3, 3), "y": y, "mask": mask, "rho": rho, **numbers}
        factor = torch.eye(9).repeat(batch, 1, 1)
        right = torch.rand(batch, 1, 3, 3)
        return {
            "x": x,
            "mask": mask,
            "weight": torch.rand(batch) + 0.5,
            "right": right,
            "factor": factor,
            **numbers,
        }

    fuzz(operation, valid)


@pytest.mark.parametrize("iterations", [8, 100], ids=["unasked", "asked"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_gpu_gives_what_the_cpu_gives(monkeypatch: pytest.MonkeyPatch, mask: Tensor, iterations: int) -> None:
    """On the stand-in for one; without being asked, solved samples stay as they are."""
    x0, y = (torch.cat([a, b]) for a, b in zip(images(0), images(1), strict=True))
    kernel, rho = torch.cat([KERNELS["gaussian"], KERNELS["motion"]]), torch.tensor([1.0, 0.1]).double()
    arguments = (x0, kernel, y, mask, rho)
    with ext.use_backend("reference"):
        expected = ext.masked_proximal(*arguments, iterations=iterations)
    with stand_in_device(monkeypatch) as waits, torch.no_grad():
        found = ext.masked_proximal(*put(arguments), iterations=iterations)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(fetch(one), other, rtol=1e-4, atol=5e-4)
    asked = [where for what, where in waits if what == "_local_scalar_dense"]
    assert bool(asked) == (iterations > UNASKED)


def test_a_program_that_is_compiled_computes_the_same() -> None:
    arguments = tuple(value.float() for value in batch())
    single = [value.float() for value in kernel_problem(4)]

    def solve(*values: Tensor) -> tuple[Tensor, ...]:
        solved = ext.masked_kernel_solve(*single, tolerance=1e-4)
        return *ext.masked_proximal(*values), *solved

    with ext.use_backend("reference"):
        compiled = torch.compile(solve, backend="aot_eager")(*arguments)
        for one, other in zip(compiled, solve(*arguments), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
