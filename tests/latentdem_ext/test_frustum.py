"""Volumes in frustums seen from other cameras, against rays and points one by one, on every backend."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext

from .fuzzing import fuzz

SIZE = (5, 6, 19)  # planes, rows, columns: more than one vector of columns, and not whole ones
OPERATIONS = pytest.mark.parametrize("name", ["frustum_resample", "frustum_hits"])


def cameras(batch: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Cameras about 2.6 radii away, turned, moved and zoomed, so that a part of each volume is outside."""
    generator = torch.Generator().manual_seed(batch)
    matrix = torch.eye(3, 4) + 0.25 * torch.randn(batch, 3, 4, generator=generator)
    distances = 2.6 + 0.1 * torch.randn(batch, 2, generator=generator)
    return {"matrix": matrix.to(dtype), "distances": distances.to(dtype)}


def problem(name: str, batch: int = 2, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    if name == "frustum_hits":
        return {"opacity": torch.rand(batch, 1, *SIZE, generator=generator).to(dtype), **cameras(batch, dtype)}
    return {"volume": torch.randn(batch, 3, *SIZE, generator=generator).to(dtype), **cameras(batch, dtype)}


def centre(index: int, count: int) -> float:
    return (2 * index + 1) / count - 1


def position(matrix: Tensor, distances: Tensor, cell: tuple[int, ...]) -> list[float]:
    """Where the centre of a cell of the wanted camera lies in the frustum of the other one."""
    s, v, u = (centre(index, count) for index, count in zip(cell, SIZE, strict=True))
    depth = float(distances[0]) + s
    x, y, forward = (matrix @ torch.tensor([depth * u, depth * v, depth, 1.0], dtype=matrix.dtype)).tolist()
    return [x / forward, y / forward, forward - float(distances[1])]


def value_at(grid: Tensor, place: list[float]) -> Tensor:
    """Trilinear value (v,) of a volume (v, d, h, w) at a place (right, down, away); 0 outside."""
    total = torch.zeros(len(grid), dtype=grid.dtype)
    at = [(p + 1) * count / 2 - 0.5 for p, count in zip(reversed(place), SIZE, strict=True)]
    for corner in range(8):
        cell, share = [], 1.0
        for axis, index in enumerate(at):
            low, up = math.floor(index), corner >> axis & 1
            cell.append(low + up)
            share *= index - low if up else 1 - (index - low)
        if all(0 <= index < count for index, count in zip(cell, SIZE, strict=True)):
            total += share * grid[(slice(None), *cell)]
    return total


@pytest.mark.usefixtures("backend")
def test_every_point_is_looked_up_where_it_is() -> None:
    given = problem("frustum_resample")
    actual = ext.frustum_resample(**{name: value.float() for name, value in given.items()})
    outside = 0
    for b in range(2):
        for cell in [(0, 0, 0), (4, 5, 18), (2, 3, 9), (1, 5, 16), (3, 0, 15), (4, 2, 1)]:
            place = position(given["matrix"][b], given["distances"][b], cell)
            expected = value_at(given["volume"][b], place)
            outside += max(map(abs, place)) > 1
            torch.testing.assert_close(actual[(b, slice(None), *cell)].double(), expected, rtol=1e-5, atol=1e-5)
    assert 0 < outside < 12


@pytest.mark.usefixtures("backend")
def test_rays_hit_what_is_in_front() -> None:
    given = problem("frustum_hits")
    actual = ext.frustum_hits(**{name: value.float() for name, value in given.items()})
    for b in range(2):
        for row, column in [(0, 0), (5, 18), (3, 9), (2, 17)]:
            passed, expected = 1.0, torch.zeros(4, dtype=torch.float64)
            for plane in range(SIZE[0]):
                place = position(given["matrix"][b], given["distances"][b], (plane, row, column))
                value = float(value_at(given["opacity"][b], place))
                expected += passed * value * torch.tensor([1.0, *place], dtype=torch.float64)
                passed *= 1 - value
            torch.testing.assert_close(actual[b, :, row, column].double(), expected, rtol=1e-5, atol=1e-5)


@OPERATIONS
def test_gradients_of_the_definition(name: str) -> None:
    given = [value.requires_grad_() for value in problem(name, 1).values()]
    assert torch.autograd.gradcheck(getattr(ext, name), given, eps=1e-7, atol=1e-5, fast_mode=True)


def with_gradients(name: str, given: dict[str, Tensor]) -> list[Tensor]:
    """The result and the gradients of all arguments of a random weighting of it."""
    inputs = [value.clone().requires_grad_() for value in given.values()]
    result = getattr(ext, name)(*inputs)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [result.detach(), *torch.autograd.grad(result, inputs, weights.to(result))]


@OPERATIONS
@pytest.mark.usefixtures("backend")
def test_values_and_gradients_are_those_of_double_precision(name: str) -> None:
    given = problem(name, 3)
    single = with_gradients(name, {key: value.float() for key, value in given.items()})
    with ext.use_backend("reference"):
        double = with_gradients(name, given)
        own = with_gradients(name, {key: value.float() for key, value in given.items()})
    for value, expected, rounded in zip(single, double, own, strict=True):
        scale = expected.abs().max()
        allowed = max(1e-5, 2 * float((rounded - expected).abs().max() / scale))
        assert float((value - expected).abs().max() / scale) <= allowed


@OPERATIONS
def test_gradients_of_the_cameras_alone(name: str, backend: str) -> None:
    given = problem(name, 2, torch.float32)
    _, _, *expected = with_gradients(name, given)
    volume, *rest = given.values()
    inputs = [value.clone().requires_grad_() for value in rest]
    result = getattr(ext, name)(volume, *inputs)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for value, same in zip(torch.autograd.grad(result, inputs, weights.to(result)), expected, strict=True):
        torch.testing.assert_close(value, same, rtol=0, atol=0 if backend == "cpp" else 1e-4)


@OPERATIONS
@pytest.mark.usefixtures("backend")
def test_what_is_behind_the_camera_or_no_number_is_outside(name: str) -> None:
    given = problem(name, 2, torch.float32)
    given["matrix"][0] = torch.eye(3, 4) * torch.tensor([1.0, 1.0, -1.0])[:, None]
    assert not getattr(ext, name)(**given)[0].any()
    given["matrix"][0] = math.nan
    alone = {key: value[1:] for key, value in given.items()}
    torch.testing.assert_close(getattr(ext, name)(**given)[1:], getattr(ext, name)(**alone))


@OPERATIONS
def test_results_do_not_depend_on_the_number_of_threads(
    name: str, backend: str, on_every_number_of_threads: Any
) -> None:
    given = problem(name, 3, torch.float32)
    first, *others = on_every_number_of_threads(lambda: with_gradients(name, given))
    for other in others:
        for value, same in zip(other, first, strict=True):
            torch.testing.assert_close(value, same, rtol=0, atol=1e-4 if backend == "reference" else 0)


@OPERATIONS
@pytest.mark.usefixtures("backend")
def test_no_sample(name: str) -> None:
    empty = {key: value[:0].float() for key, value in problem(name).items()}
    assert len(getattr(ext, name)(**empty)) == 0


@OPERATIONS
def test_registration(name: str) -> None:
    given = [value.requires_grad_() for value in problem(name, 2, torch.float32).values()]
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(getattr(torch.ops.latentdem, name).default, tuple(given), test_utils=checks)
    forward = getattr(ext, name)(*given).detach()
    backward = getattr(torch.ops.latentdem, f"{name}_backward").default
    for whole in (False, True):
        arguments = (forward, *(value.detach() for value in given), whole)
        torch.library.opcheck(backward, arguments, test_utils=checks[:2])


def test_an_opacity_has_one_channel() -> None:
    given = problem("frustum_resample")
    with pytest.raises(ValueError, match=r"opacity must have shape \(B, 1, d, h, w\)"):
        ext.frustum_hits(given["volume"], given["matrix"], given["distances"])


def test_arguments_of_every_kind_are_taken_or_refused_by_name() -> None:
    def opacity(batch: int) -> dict[str, Any]:
        return {"opacity": torch.rand(batch, 1, 3, 4, 5), **cameras(batch, torch.float32)}

    def volume(batch: int) -> dict[str, Any]:
        return {"volume": torch.rand(batch, 2, 3, 4, 5), **cameras(batch, torch.float32)}

    fuzz(ext.frustum_hits, opacity)
    fuzz(ext.frustum_resample, volume)
