"""The kernel step of the gradient-based start against dense least squares, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators.kernels import motion_kernels
from latentdem_ext import reference
from latentdem_ext.reference.edges import differences

from .fuzzing import fuzz

SHAPE = (20, 24)  # even, as the compiled module has it
SIZE = 5
CPP = pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)


@pytest.fixture(params=["reference", pytest.param("cpp", marks=CPP)])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with ext.use_backend(request.param):
        yield request.param


def photographs(channels: int = 1, shape: tuple[int, int] = SHAPE) -> dict[str, Any]:
    """Images of three samples, transforms of their blur, masks and settings of their own."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, channels, *shape, generator=generator, dtype=torch.float64)
    mask = (torch.rand(3, 1, *shape, generator=generator, dtype=torch.float64) > 0.2).double()
    kernel = torch.cat([motion_kernels(1, SIZE, 0.5, seed).double() for seed in range(3)])
    y_hat = torch.fft.rfft2(reference.blur(x, kernel))
    return {
        "x": x, "y_hat": y_hat, "mask": mask, "whitening": torch.tensor([0.0, 0.3, 5.0], dtype=torch.float64)
    }  # fmt: skip


def in_float32(given: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.to(torch.complex64 if value.is_complex() else torch.float32)
        for name, value in given.items()
    }


def equations(size: int = SIZE, noise: float = 0.05) -> dict[str, Tensor]:
    """What `kernel_from_lags` takes, from photographs with noise, which makes some values negative."""
    given = photographs()
    given["y_hat"] = given["y_hat"] + noise * torch.fft.rfft2(torch.randn_like(given["x"]))
    lags, cross = reference.gradient_lags(**given, kernel_size=size)
    weight = torch.tensor([0.003, 0.03, 0.3], dtype=lags.dtype) * lags[:, 0, size - 1, size - 1]
    start = torch.rand(3, 1, size, size, dtype=lags.dtype) - 0.3
    return {"lags": lags, "cross": cross, "weight": weight, "start": start}


def matrix(lags: Tensor, weight: Tensor, size: int) -> Tensor:
    """A + a (K^2, K^2) of one sample."""
    places = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    down, across = (places[:, None] - places[None] + size - 1).unbind(-1)
    return lags[0][down, across] + weight * torch.eye(size * size, dtype=lags.dtype)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("channels", [1, 3])
def test_correlations_are_sums_over_pixels(channels: int) -> None:
    """Without whitening, by shifting images."""
    given = photographs(channels)
    given["whitening"] = torch.zeros(3, dtype=torch.float64)
    y = torch.fft.irfft2(given["y_hat"], s=SHAPE)
    lags, cross = ext.gradient_lags(**in_float32(given), kernel_size=SIZE)
    masked = [given["mask"] * gradient for gradient in differences(given["x"])]
    for found, others, middle in ((lags, masked, SIZE - 1), (cross, differences(y), SIZE // 2)):
        expected = torch.empty(found.shape, dtype=torch.float64)
        for i in range(found.shape[-1]):
            for j in range(found.shape[-1]):
                moved = [gradient.roll((i - middle, j - middle), (-2, -1)) for gradient in masked]
                products = [a * b for a, b in zip(moved, others, strict=True)]
                expected[:, 0, i, j] = sum(products, torch.zeros(())).sum((1, 2, 3))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("size", [1, 2, SIZE, SHAPE[0]])
def test_whitened_correlations_of_every_size(size: int) -> None:
    """Also where an image has fewer pixels than there are lags; one mask serves all samples."""
    given = photographs()
    given["mask"] = given["mask"][:1]
    found = ext.gradient_lags(**in_float32(given), kernel_size=size)
    power = sum(
        torch.fft.fft2(filtered).abs().square()
        for filtered in differences(torch.eye(1, SHAPE[0] * SHAPE[1]).view(SHAPE))
    )
    gain = 1 / (1 + given["whitening"].view(3, 1, 1, 1) * power)
    gradients, y = differences(given["x"]), torch.fft.irfft2(given["y_hat"], s=SHAPE)
    spectra = [torch.fft.fft2(given["mask"] * gradient) for gradient in gradients]
    others = [torch.fft.fft2(gradient) for gradient in differences(y)]
    for result, second, middle in ((found[0], spectra, size - 1), (found[1], others, size // 2)):
        spectrum = sum(a.conj() * b for a, b in zip(spectra, second, strict=True)) * gain
        index = [(torch.arange(result.shape[-1]) - middle) % side for side in SHAPE]
        expected = torch.fft.ifft2(spectrum).real[..., index[0][:, None], index[1]]
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("size", [1, 2, 4, SIZE, 9])
def test_non_negative_kernels_are_those_of_dense_least_squares(size: int) -> None:
    given = equations(size)
    found = ext.kernel_from_lags(**in_float32(given), tolerance=1e-6, iterations=1000)
    assert float(found.min()) >= 0
    for n in range(3):
        factor = torch.linalg.cholesky(matrix(given["lags"][n], given["weight"][n], size))
        right = torch.linalg.solve_triangular(factor, given["cross"][n].reshape(-1, 1), upper=False)
        expected, _ = nnls(factor.T.numpy(), right[:, 0].numpy())
        torch.testing.assert_close(
            found[n].flatten().double(), torch.from_numpy(expected), rtol=0, atol=1e-4 * expected.max()
        )
    assert size < SIZE or bool((found == 0).any())  # where the bound matters


@pytest.mark.usefixtures("backend")
def test_kernels_without_a_bound_solve_the_normal_equations() -> None:
    given = equations()
    found = ext.kernel_from_lags(**in_float32(given), nonnegative=False, tolerance=1e-6, iterations=1000)
    for n in range(3):
        expected = torch.linalg.solve(
            matrix(given["lags"][n], given["weight"][n], SIZE), given["cross"][n].flatten()
        )
        torch.testing.assert_close(
            found[n].flatten().double(), expected, rtol=0, atol=1e-4 * float(expected.abs().max())
        )
    assert float(found.min()) < 0


@pytest.mark.usefixtures("backend")
def test_the_true_kernel_comes_from_its_gradients() -> None:
    given = photographs()
    given["mask"] = torch.ones_like(given["mask"])
    lags, cross = ext.gradient_lags(**in_float32(given), kernel_size=SIZE)
    start = torch.full_like(cross, 1 / SIZE**2)
    found = ext.kernel_from_lags(lags, cross, torch.zeros(3), start, tolerance=1e-6, iterations=1000)
    expected = torch.cat([motion_kernels(1, SIZE, 0.5, seed) for seed in range(3)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.usefixtures("backend")
def test_iterations_approach_the_minimum() -> None:
    given = equations(9)

    def excess(iterations: int) -> Tensor:
        kernel = ext.kernel_from_lags(**in_float32(given), tolerance=0.0, iterations=iterations).double()
        values = []
        for n in range(3):
            k, dense = kernel[n].flatten(), matrix(given["lags"][n], given["weight"][n], 9)
            values.append(k @ dense @ k / 2 - given["cross"][n].flatten() @ k)
        return torch.stack(values)

    costs = torch.stack([excess(iterations) for iterations in (0, 2, 5, 10, 20, 200)])
    assert bool((costs.diff(dim=0) < 1e-5 * costs[0].abs()).all())


@pytest.mark.usefixtures("backend")
def test_a_kernel_that_is_accurate_enough_stays_as_it_is() -> None:
    given = in_float32(equations())
    solved = ext.kernel_from_lags(**given, tolerance=1e-5, iterations=1000)
    again = ext.kernel_from_lags(**given | {"start": solved}, tolerance=1e-4, iterations=1000)
    assert torch.equal(again, solved)
    assert torch.equal(ext.kernel_from_lags(**given, iterations=0), given["start"].clamp_min(0))


def calls() -> list[Any]:
    correlated, solved = in_float32(photographs(2)), in_float32(equations(9))
    return [
        lambda rows: torch.cat(
            [
                one.flatten(1)
                for one in ext.gradient_lags(
                    **{name: value[rows] for name, value in correlated.items()}, kernel_size=SIZE
                )
            ],
            1,
        ),
        lambda rows: ext.kernel_from_lags(**{name: value[rows] for name, value in solved.items()}),
    ]


@pytest.mark.parametrize("call", calls(), ids=["gradient_lags", "kernel_from_lags"])
def test_samples_do_not_depend_on_each_other(backend: str, call: Any) -> None:
    together = call(slice(None))
    atol = 0 if backend == "cpp" else 1e-4 * float(together.abs().max())
    for n in range(3):
        torch.testing.assert_close(call(slice(n, n + 1))[0], together[n], rtol=0, atol=atol)


@pytest.mark.parametrize("call", calls(), ids=["gradient_lags", "kernel_from_lags"])
def test_results_do_not_depend_on_the_number_of_threads(
    backend: str, call: Any, on_every_number_of_threads: Any
) -> None:
    first, *others = on_every_number_of_threads(lambda: call(slice(None)))
    atol = 0 if backend == "cpp" else 1e-4 * float(first.abs().max())
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=atol)


@pytest.mark.usefixtures("backend")
def test_nothing_comes_from_no_sample() -> None:
    images = {name: value[:0] for name, value in in_float32(photographs()).items()}
    assert [one.shape for one in ext.gradient_lags(**images, kernel_size=3)] == [(0, 1, 5, 5), (0, 1, 3, 3)]
    kernels = {name: value[:0] for name, value in in_float32(equations()).items()}
    assert ext.kernel_from_lags(**kernels).shape == (0, 1, SIZE, SIZE)


@pytest.mark.usefixtures("backend")
def test_an_image_without_gradients_leaves_the_start() -> None:
    lags, cross, start = torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 3, 3), torch.rand(1, 1, 3, 3)
    assert torch.equal(ext.kernel_from_lags(lags, cross, torch.zeros(1), start), start)


@CPP
def test_sizes_that_the_compiled_module_does_not_transform() -> None:
    given = in_float32(photographs(1, (20, 23)))
    with ext.record_backends() as used:
        ext.gradient_lags(**given, kernel_size=3)
    assert used["gradient_lags"] == ["reference"]
    with ext.use_backend("cpp"), pytest.raises(RuntimeError, match="x has 23 columns: odd"):
        ext.gradient_lags(**given, kernel_size=3)


def test_registration() -> None:
    checks = {"test_utils": ("test_schema", "test_faketensor")}
    torch.library.opcheck(
        torch.ops.latentdem.gradient_lags.default, (*in_float32(photographs()).values(), SIZE), **checks
    )
    given = tuple(in_float32(equations()).values())
    torch.library.opcheck(torch.ops.latentdem.kernel_from_lags.default, (*given, True, 1e-3, 20), **checks)


def test_what_has_no_minimum_is_refused() -> None:
    with pytest.raises(ValueError, match="whitening must not be negative"):
        ext.gradient_lags(**photographs() | {"whitening": torch.tensor([0.0, -0.1, 1.0])}, kernel_size=3)
    with pytest.raises(ValueError, match="weight must not be negative"):
        ext.kernel_from_lags(**equations() | {"weight": torch.tensor([0.0, -0.1, 1.0])})
    with pytest.raises(ValueError, match="start requires a gradient, which kernel_from_lags does not compute"):
        ext.kernel_from_lags(**equations() | {"start": torch.rand(3, 1, SIZE, SIZE).double().requires_grad_()})


def test_arguments_of_every_kind_are_taken_or_refused_by_name() -> None:
    def images(batch: int) -> dict[str, Any]:
        x = torch.rand(batch, 2, 6, 8)
        return {
            "x": x,
            "y_hat": torch.zeros(batch, 2, 6, 5, dtype=torch.complex64),
            "mask": torch.ones(batch, 1, 6, 8),
            "whitening": torch.rand(batch),
            "kernel_size": 3,
        }

    def kernels(batch: int) -> dict[str, Any]:
        return {
            "lags": torch.rand(batch, 1, 5, 5),
            "cross": torch.rand(batch, 1, 3, 3),
            "weight": torch.rand(batch) + 10,
            "start": torch.rand(batch, 1, 3, 3),
            "nonnegative": True,
            "tolerance": 1e-3,
            "iterations": 5,
        }

    fuzz(ext.gradient_lags, images)
    fuzz(ext.kernel_from_lags, kernels)
